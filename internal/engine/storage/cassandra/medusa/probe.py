# Asks medusa's own library about one node's backup: the command line does not tell what a backup holds. It prints one line of JSON.
# Arguments: MODE CONFIG NAME [FQDN]; the last one acts as another node.
import functools, importlib.metadata, inspect, json, os, pathlib, signal, sys, time
import medusa.cassandra_utils
import medusa.config
from medusa.backup_node import handle_backup
from medusa.cassandra_utils import Cassandra
from medusa.purge import purge_backups
from medusa.storage import Storage

mode, config_file, name = sys.argv[1:4]
config = medusa.config.load_config({"fqdn": sys.argv[4]} if len(sys.argv) > 4 else {}, pathlib.Path(config_file))
fqdn = config.storage.fqdn
NOT_STORED = ("manifest.json", "schema.cql")  # medusa leaves them out


def below(blobs, folder):  # listings are by the beginning of a name, so NAME finds NAME2 as well
    return [b for b in blobs if b.name.startswith(str(folder) + "/")]


def backup_of(s):
    nb = s.get_node_backup(fqdn=fqdn, name=name)
    if s.storage_driver.get_blob(str(nb.backup_path / "meta" / "differential")) is not None:
        nb = s.get_node_backup(fqdn=fqdn, name=name, differential_mode=True)
    return nb


def traces(s):
    nb = s.get_node_backup(fqdn=fqdn, name=name)
    found = [b.name for b in below(s.storage_driver.list_objects(str(nb.backup_path)), nb.backup_path)]
    index = "{}index/backup_index/{}".format(s.prefix_path, name)
    return found + [b.name for b in below(s.storage_driver.list_objects(index), index) if s.get_fqdn_from_any_index_blob(b) == fqdn]


def check(s):
    # A busy node takes longer than the two seconds that are the default.
    medusa.cassandra_utils.Cluster = functools.partial(medusa.cassandra_utils.Cluster, connect_timeout=60, control_connection_timeout=60)
    cassandra = Cassandra(config)
    with cassandra.new_session() as session:
        tokenmap = session.tokenmap()
    own = tokenmap.get(fqdn)
    tokens = None
    if own is not None:
        tokens = own["tokens"] if isinstance(own["tokens"], list) else [own["tokens"]]
        tokens = [str(t) for t in tokens]
    return {
        "version": importlib.metadata.version("cassandra-medusa"), "provider": config.storage.storage_provider,
        "existing": "use_existing_snapshot" in inspect.signature(handle_backup).parameters,
        "fqdn": fqdn, "tokens": tokens, "names": sorted(tokenmap), "traces": traces(s),
        "purges": int(config.storage.max_backup_age) > 0 or int(config.storage.max_backup_count) > 0,
    }


# What a differential backup would take for the same file, or write over, though it is another one: names of SSTables start anew after a wipe.
def conflicts(s):
    nb = s.get_node_backup(fqdn=fqdn, name=name, differential_mode=True)
    stored = {b.name: b for b in below(s.storage_driver.list_objects(str(nb.data_path)), nb.data_path)}
    root, found = pathlib.Path(Cassandra(config).root), []
    for directory in root.glob("*/*/snapshots/" + name):
        keyspace, table = directory.relative_to(root).parts[:2]
        for path in directory.glob("**/*"):
            blob = stored.get(str(nb.datapath(keyspace=keyspace, columnfamily=table) / path.relative_to(directory)))
            if blob is None or not path.is_file() or path.name in NOT_STORED or path.name.endswith(("-Statistics.db", "-Summary.db")):
                continue
            if blob.size != path.stat().st_size or path.name.endswith("-Digest.crc32") and s.storage_driver.read_blob_as_bytes(blob) != path.read_bytes():
                found.append(blob.name)
    return {"count": len(found), "conflicts": found[:5]}


def manifest(s):
    nb = backup_of(s)
    text = s.storage_driver.get_blob_content_as_string(nb.manifest_path) if nb.exists() else None
    if text is None:
        return {"traces": traces(s)}
    stored = {b.name: b for b in below(s.storage_driver.list_objects(str(nb.data_path)), nb.data_path)}
    prefix, tables = s.storage_driver.get_path_prefix(nb.data_path), []
    for section in json.loads(text):
        folder = nb.datapath(keyspace=section["keyspace"], columnfamily=section["columnfamily"])
        objects = []
        for o in section["objects"]:
            blob = stored.get("{}{}".format(prefix, o["path"]))
            one = {"path": str(pathlib.PurePosixPath(o["path"]).relative_to(folder)), "size": o["size"], "stored": -1 if blob is None else blob.size}
            if blob is not None and blob.name.endswith("-Digest.crc32"):
                one["digest"] = s.storage_driver.read_blob_as_string(blob, "latin-1")
            objects.append(one)
        tables.append({"keyspace": section["keyspace"], "table": section["columnfamily"], "objects": objects})
    return {"fqdn": fqdn, "complete": True, "differential": bool(nb.is_differential), "traces": [str(nb.manifest_path)], "tables": tables}


# Ends backups of that name that still run, and removes what there is of it for the node.
def purge(s):
    deadline = time.monotonic() + 30
    while True:
        running = []
        for p in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                args = (p / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"backup-node" in args and name.encode() in args and int(p.name) != os.getpid():
                running.append(int(p.name))
        if not running:
            break
        for pid in running:
            try:
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.2)
    if traces(s):  # as delete-backup does, which does not find one that was cut off early
        purge_backups(s, [backup_of(s)], config.storage.backup_grace_period_in_days, fqdn)
    return {"traces": traces(s)}


with Storage(config=config.storage) as storage:
    print(json.dumps({"check": check, "conflicts": conflicts, "manifest": manifest, "purge": purge}[mode](storage)))
