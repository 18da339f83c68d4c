// Package cassypb is the generated code of Cassy's API; cassy.proto is ours, wire-compatible with the official one.
package cassypb

// The path from the module's root makes the descriptor's name unique: two files of one name panic when they are linked into one binary.
//go:generate sh -c "cd ../../../../../.. && protoc --plugin=protoc-gen-go=$(go tool -n protoc-gen-go) --plugin=protoc-gen-go-grpc=$(go tool -n protoc-gen-go-grpc) --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative internal/engine/storage/cassandra/cassy/cassypb/cassy.proto"
