package provider

import (
	"strings"
	"testing"
)

// TestValidation: what can be refused without asking anybody is refused at validate, at the argument that is wrong.
func TestValidation(t *testing.T) {
	t.Parallel()
	c := newSystem(t).core()
	b := backupConfig()
	pause := providerConfig()["pause"].(object)
	withPause := func(path string, v any) object { return with(b, "pause", with(pause, path, v)) }
	for name, tt := range map[string]struct {
		typ    string
		config object
		want   string // in the error or its path
	}{
		"empty name":            {"scalardb_consistent_backup", with(b, "name", ""), `"name"`},
		"hidden name":           {"scalardb_consistent_backup", with(b, "name", ".x"), `"name"`},
		"slash in the name":     {"scalardb_consistent_backup", with(b, "name", "a/b"), `"name"`},
		"long name":             {"scalardb_consistent_backup", with(b, "name", strings.Repeat("x", 65)), `"name"`},
		"storage name":          {"scalardb_consistent_backup", with(b, "storages", object{"a/b": object{"memory": object{"path": "x"}}}), `"storages"`},
		"no storage":            {"scalardb_consistent_backup", with(b, "storages", object{}), `"storages"`},
		"no driver":             {"scalardb_consistent_backup", with(b, "storages.orders", object{}), "Storage without a driver"},
		"two drivers":           {"scalardb_consistent_backup", with(b, "storages.orders.other", object{"path": "x"}), "Storage with several drivers"},
		"the driver's own":      {"scalardb_consistent_backup", with(b, "storages.orders.memory.path", "bad"), `ElementKeyString("orders").AttributeName("memory").AttributeName("path")`},
		"deletion policy":       {"scalardb_consistent_backup", with(b, "deletion_policy", "keep"), `"deletion_policy"`},
		"no address":            {"scalardb_consistent_backup", withPause("targets.main.addresses", []any{}), `"addresses"`},
		"port missing":          {"scalardb_consistent_backup", withPause("targets.main.addresses", []any{"10.0.0.1:60051", "10.0.0.2"}), `AttributeName("addresses").ElementKeyInt(1)`},
		"address twice":         {"scalardb_consistent_backup", withPause("targets.main.addresses", []any{"10.0.0.1:60051", "10.0.0.1:60051"}), `"addresses"`},
		"addresses and srv":     {"scalardb_consistent_backup", withPause("targets.main.srv", "_a._tcp.example.com"), "Target group with two lists"},
		"neither":               {"scalardb_consistent_backup", withPause("targets.main", object{}), "Target group without targets"},
		"bad srv":               {"scalardb_consistent_backup", withPause("targets.main", object{"srv": "-"}), `"srv"`},
		"no group":              {"scalardb_consistent_backup", withPause("targets", object{}), `"targets"`},
		"group name":            {"scalardb_consistent_backup", withPause("targets", object{"a b": object{"srv": "_a._tcp.example.com"}}), `"targets"`},
		"half a certificate":    {"scalardb_consistent_backup", withPause("targets.main.tls", object{"cert_pem": "x"}), "Incomplete client certificate"},
		"min beyond max":        {"scalardb_consistent_backup", withPause("min_duration", "30s"), `"min_duration"`},
		"drain not below max":   {"scalardb_consistent_backup", withPause("drain_timeout", "20s"), `"drain_timeout"`},
		"default min beyond":    {"scalardb_consistent_backup", with(b, "pause", object{"targets": pause["targets"], "max_duration": "4s", "drain_timeout": "1s"}), `"min_duration"`},
		"drain of nothing":      {"scalardb_consistent_backup", withPause("drain_timeout", "0s"), `"drain_timeout"`},
		"negative min":          {"scalardb_consistent_backup", withPause("min_duration", "-1s"), `"min_duration"`},
		"no duration":           {"scalardb_consistent_backup", withPause("max_duration", "soon"), `"max_duration"`},
		"no timeout":            {"scalardb_consistent_backup", with(b, "timeouts", object{"create": "soon"}), "timeouts"},
		"no backup":             {"scalardb_snapshot_restore", with(restoreConfig(), "backup_id", nil), "Restore without a backup"},
		"two backups":           {"scalardb_snapshot_restore", with(restoreConfig(), "manifest_json", `{"version":1,"backup_id":"b","run_id":"0123456789abcdef"}`), "Restore of two backups"},
		"no manifest":           {"scalardb_snapshot_restore", with(with(restoreConfig(), "backup_id", nil), "manifest_json", "{}"), `"manifest_json"`},
		"unknown storage":       {"scalardb_snapshot_restore", with(restoreConfig(), "verify", object{"one_phase_commit": []any{"nope"}}), "Unknown storage"},
		"unknown coordinator":   {"scalardb_consistency_check", object{"storages": b["storages"], "coordinator_storage": "nope"}, "Unknown storage"},
		"two windows":           {"scalardb_consistency_check", object{"storages": b["storages"], "backup_id": "b", "pause_window": object{"started_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:05Z"}}, "Check against two windows"},
		"two bounds of a clock": {"scalardb_pause_window", object{"name": "w", "storages": b["storages"], "clock_uncertainty": "1s"}, `"clock_uncertainty"`},
	} {
		d := c.manage(tt.typ).validate(tt.config)
		if !d.has(tt.want) || len(d.errors()) == 0 {
			t.Errorf("%s: want %s, got %v", name, tt.want, d.errors())
		}
		if strings.Contains(name, "driver") && len(d.errors()) != 1 {
			t.Errorf("%s: reported %d times: %v", name, len(d.errors()), d.errors())
		}
	}

	long := c.manage("scalardb_consistent_backup").validate(withPause("max_duration", "3m"))
	if len(long.errors()) > 0 || !long.has("Pauses may outlast") {
		t.Errorf("a long pause: %v, %v", long.errors(), long.warnings())
	}
	// Whatever is unknown is no reason to refuse.
	for name, config := range map[string]object{
		"name": with(b, "name", unknown), "storages": with(b, "storages", unknown), "storage": with(b, "storages.orders", unknown), "driver": with(b, "storages.orders.memory", unknown),
		"argument": with(b, "storages.orders.memory.path", unknown), "pause": with(b, "pause", unknown), "targets": withPause("targets", unknown), "group": withPause("targets.main", unknown),
		"addresses": withPause("targets.main.addresses", unknown), "address": withPause("targets.main.addresses", []any{unknown}), "max": withPause("max_duration", unknown),
		"drain": withPause("drain_timeout", unknown), "min": withPause("min_duration", unknown), "cert": withPause("targets.main.tls", object{"cert_pem": unknown, "key_pem": "x"}),
	} {
		i := c.manage("scalardb_consistent_backup")
		wantNoErrors(t, name, i.validate(config))
		wantAction(t, i.plan(config), "create")
	}
}
