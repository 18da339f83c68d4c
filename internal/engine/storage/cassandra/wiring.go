package cassandra

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	gocql "github.com/apache/cassandra-gocql-driver/v2"

	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/relational"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/cassy"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jmxnode"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/jolokia"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/local"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/managementapi"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/medusa"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/move"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/node"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/nodetool"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/reading"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/remote"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/rest"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/sidecar"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/snapshot"
	"github.com/scalar-labs/terraform-provider-scalardb/internal/engine/storage/cassandra/upload"
)

const (
	defaultManagementURL = "http://{address}:8080"
	defaultSidecarURL    = "http://{address}:9043"
	defaultJolokiaURL    = "http://{address}:8778/jolokia"
)

// wiring is the arguments of either side as they were typed, and what is made of them. Zero values stand for what was left out.
type wiring struct {
	Env    storage.Env
	Layout relational.Layout

	ContactPoints   []string
	Port            int
	Datacenter      string
	Keyspaces       []string
	AllowDownNodes  bool
	TLS             bool
	TLSServerName   string
	SnapshotTimeout time.Duration
	Read            wiredRead
	SSH             *wiredSSH
	Transport       wiredTransport
	Data            wiredData
	Load            wiredLoad
	InPlace         wiredNodes
	SameTopology    wiredNodes
}

type wiredRead struct {
	Consistency        string
	PageSize, Parallel int
}

type wiredSSH struct {
	Host, User, KnownHosts, KnownHostsPath string
	Port                                   int
	Bastion                                *wiredBastion
}

type wiredBastion struct {
	Host, User string
	Port       int
}

type wiredTransport struct {
	Name                  string
	Host                  string // jmx
	Port                  int
	TLS, RegistryTLS, SSH bool
	URL                   string   // management_api, sidecar, jolokia
	Command               string   // ssh
	Words                 []string // exec
}

type wiredData struct {
	Place                    string // keep_on_nodes, ...
	Via                      string
	Parallel, BandwidthLimit int
	Directories              []string
	Command, ConfigFile      string // medusa
	Address, ClusterID       string // cassy
	ClearOtherSnapshots, TLS bool
}

type wiredLoad struct {
	Given                  bool
	Keyspaces, Replication map[string]string
	Directory, Owner, Via  string
}

type wiredNodes struct {
	Given                                                                     bool
	StopCommand, StartCommand, Owner, Via                                     string
	DataDirectories                                                           []string
	CommitlogDirectory, HintsDirectory, SavedCachesDirectory, CDCRawDirectory string
}

// settings are all but the mover.
func (w wiring) settings() Settings {
	s := Settings{
		Storage: w.Env.StorageName, Clock: w.Env.Clock, Catalog: w.Env.Catalog, CatalogIsDefault: w.Env.CatalogIsDefault, Report: w.Env.Report,
		ContactPoints: w.ContactPoints, Port: w.Port, Datacenter: w.Datacenter, Keyspaces: w.Keyspaces, Layout: w.Layout,
		AllowDownNodes: w.AllowDownNodes, SnapshotTimeout: w.SnapshotTimeout, TLS: w.TLS, TLSServerName: w.TLSServerName,
		DataDirectories: w.Data.Directories, Reach: w.reach,
	}
	if c := w.Env.Credentials; c != nil {
		s.Username, s.Password, s.CAPEM, s.CertPEM, s.KeyPEM = c.Username, c.Password, c.CAPEM, c.CertPEM, c.KeyPEM
	}
	return s
}

// toRead is what verification reads, and how. Of a clone it reads what is in the backup: the cluster may have other keyspaces of ScalarDB, and the clone some that
// ScalarDB does not list.
func (w wiring) toRead(side storage.Side) reading.Settings {
	s := reading.Settings{Keyspaces: w.Keyspaces, Layout: w.Layout, Rename: w.Load.Keyspaces, Datacenter: w.Datacenter, PageSize: w.Read.PageSize, Parallel: w.Read.Parallel}
	if side == storage.DestinationSide {
		s.Keyspaces = w.Env.Namespaces
	}
	if w.Read.Consistency != "" {
		s.Consistency = gocql.ParseConsistency(w.Read.Consistency) // Validate has refused what it would panic at
	}
	return s
}

func (w wiring) getenv(name string) string {
	if w.Env.Getenv != nil {
		return w.Env.Getenv(name)
	}
	return os.Getenv(name)
}

// hosts are the nodes' machines over SSH; nil without ssh.
func (w wiring) hosts() (*remote.Hosts, error) {
	if w.SSH == nil {
		return nil, nil //nolint:nilnil // no SSH is no error
	}
	s := remote.Settings{Host: w.SSH.Host, Port: w.SSH.Port, User: w.SSH.User, KnownHosts: w.SSH.KnownHosts, KnownHostsPath: w.SSH.KnownHostsPath}
	if b := w.SSH.Bastion; b != nil {
		s.Bastion = &remote.Bastion{Host: b.Host, Port: b.Port, User: b.User}
	}
	if c := w.Env.Credentials; c != nil && c.SSH != nil {
		s.User = cmp.Or(s.User, c.SSH.Username)
		s.PrivateKeyPEM, s.Passphrase, s.Password = c.SSH.PrivateKeyPEM, c.SSH.Passphrase, c.SSH.Password
	}
	return remote.New(s, remote.Options{Clock: w.Env.Clock, Getenv: w.getenv})
}

// jmx is the login of JMX.
func (w wiring) jmx() (username, password string) {
	if c := w.Env.Credentials; c != nil && c.JMX != nil {
		return c.JMX.Username, c.JMX.Password
	}
	return "", ""
}

// via is how the nodes' files are reached, on either side.
func (w wiring) via() string {
	return cmp.Or(w.Data.Via, w.Load.Via, w.InPlace.Via, w.SameTopology.Via)
}

func (w wiring) machine(r Reaching) local.Machine {
	return local.Machine{Clock: w.Env.Clock, Getenv: w.getenv, Custody: r.Custody}
}

// reach makes the transport, and what opens the nodes' files.
func (w wiring) reach(r Reaching) (node.Transport, node.Filesystem, error) {
	hosts, err := w.hosts()
	if err != nil {
		return nil, nil, err
	}
	var files node.Filesystem
	switch {
	case w.via() == "local":
		files = w.machine(r)
	case hosts != nil:
		files = hosts
	}
	t, err := w.transport(r, hosts)
	return t, files, err
}

func (w wiring) transport(r Reaching, hosts *remote.Hosts) (node.Transport, error) {
	username, password := w.jmx()
	login := nodetool.Login{Username: username, Password: password}
	switch w.Transport.Name {
	case "jmx":
		s := jmxnode.Settings{Host: w.Transport.Host, Port: w.Transport.Port, Username: username, Password: password, RegistryTLS: w.Transport.RegistryTLS, Clock: w.Env.Clock}
		if w.Transport.TLS || w.Transport.RegistryTLS {
			var err error
			if s.TLS, err = w.certificates(); err != nil {
				return nil, err
			}
		}
		if w.Transport.SSH {
			if hosts == nil {
				return nil, errors.New("transport jmx needs ssh to be set for ssh = true")
			}
			s.SSH, s.Host = hosts, cmp.Or(s.Host, "127.0.0.1")
		}
		return jmxnode.New(s), nil
	case "management_api":
		s, err := w.rest(defaultManagementURL)
		if err != nil {
			return nil, err
		}
		return managementapi.New(s)
	case "sidecar":
		s, err := w.rest(defaultSidecarURL)
		if err != nil {
			return nil, err
		}
		return sidecar.New(s, r.Tables)
	case "jolokia":
		s, err := w.rest(defaultJolokiaURL)
		if err != nil {
			return nil, err
		}
		s.Username, s.Password = username, password
		return jolokia.New(s)
	case "ssh":
		if hosts == nil {
			return nil, errors.New("transport ssh needs ssh to be set")
		}
		return &nodetool.Transport{Runner: nodetool.SSH{Hosts: hosts, Command: w.Transport.Command, Login: login}, Clock: w.Env.Clock}, nil
	case "exec":
		words := w.Transport.Words
		if len(words) == 0 {
			words = []string{"nodetool", "-h", "{address}"}
		}
		return &nodetool.Transport{Runner: nodetool.Exec{Machine: w.machine(r), Command: words, Login: login}, Clock: w.Env.Clock}, nil
	case "":
		return nil, errors.New("no transport is set")
	}
	return nil, fmt.Errorf("this release has no transport %q", w.Transport.Name)
}

func (w wiring) rest(url string) (rest.Settings, error) {
	t, err := w.certificates()
	return rest.Settings{URL: cmp.Or(w.Transport.URL, url), TLS: t, Clock: w.Env.Clock}, err
}

// certificates are the credentials' for a transport of its own.
func (w wiring) certificates() (*tls.Config, error) {
	s := w.settings()
	s.TLS, s.TLSServerName = true, ""
	return s.tlsConfig()
}

// uploads are the settings of what brings files to and from the catalog.
func (w wiring) uploads() upload.Settings {
	return upload.Settings{Clock: w.Env.Clock, Holder: w.Env.Holder, Alive: w.Env.Alive, Parallel: w.Data.Parallel, BytesPerSecond: int64(w.Data.BandwidthLimit) * 1_000_000}
}

// destination is all of a restore.
func (w wiring) destination() DestinationSettings {
	s := DestinationSettings{Settings: w.settings(), Upload: w.uploads(), Mover: func(kind string) (move.Mover, error) {
		if kind == snapshot.KindCassy && w.Data.Address == "" {
			return nil, errors.New("set cassy, which says where its server is")
		}
		return w.moverOfKind(kind)
	}}
	if w.Load.Given {
		s.Load = &LoadSettings{Keyspaces: w.Load.Keyspaces, Replication: w.Load.Replication, Directory: w.Load.Directory, Owner: w.Load.Owner}
	}
	for inPlace, o := range map[bool]wiredNodes{true: w.InPlace, false: w.SameTopology} {
		if !o.Given {
			continue
		}
		s.DataDirectories = o.DataDirectories
		s.Stopped = &StoppedSettings{InPlace: inPlace, StopCommand: cmp.Or(o.StopCommand, "sudo systemctl stop cassandra"), StartCommand: cmp.Or(o.StartCommand, "sudo systemctl start cassandra"),
			CommitlogDirectory: o.CommitlogDirectory, HintsDirectory: o.HintsDirectory, SavedCachesDirectory: o.SavedCachesDirectory, CDCRawDirectory: o.CDCRawDirectory,
			Owner: cmp.Or(o.Owner, "cassandra:cassandra")}
	}
	return s
}

// mover makes what moves the data.
func (w wiring) mover(place string) (move.Mover, error) {
	switch place {
	case snapshot.DataNodes:
		return KeepOnNodes(), nil
	case snapshot.DataUpload:
		return upload.Mover{Settings: w.uploads()}, nil
	case snapshot.DataMedusa:
		return medusa.Mover{Settings: medusa.Settings{Clock: w.Env.Clock, Command: w.Data.Command, ConfigFile: w.Data.ConfigFile}}, nil
	case snapshot.DataCassy:
		s := cassy.Settings{Clock: w.Env.Clock, Address: w.Data.Address, ClusterID: w.Data.ClusterID, ClearOtherSnapshots: w.Data.ClearOtherSnapshots}
		if w.Data.TLS {
			var err error
			if s.TLS, err = w.certificates(); err != nil {
				return nil, err
			}
		}
		return cassy.Mover{Settings: s}, nil
	}
	return nil, fmt.Errorf("this release has no data = { %s = ... }", place)
}

// moverOfKind is what knows the artifacts of a kind.
func (w wiring) moverOfKind(kind string) (move.Mover, error) {
	switch kind {
	case snapshot.KindUpload:
		return w.mover(snapshot.DataUpload)
	case snapshot.KindMedusa:
		return w.mover(snapshot.DataMedusa)
	case snapshot.KindCassy:
		return w.mover(snapshot.DataCassy)
	}
	return nil, fmt.Errorf("this release knows no artifact of kind %q", kind)
}
