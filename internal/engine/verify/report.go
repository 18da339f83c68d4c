package verify

// Report is the result of a verification. It passes when there is no violation. Tables and NotCovered are sorted, so that the same data
// gives the same report. A record that breaks two rules counts once for each.
type Report struct {
	Passed     bool          `json:"passed"`
	Violations int64         `json:"violations"`
	Leftovers  int64         `json:"leftovers"`    // PREPARED/DELETED records that ScalarDB recovers lazily: old ones, and those of transactions that were decided before the window
	Unverif    int64         `json:"unverifiable"` // committed records without a coordinator entry that may be right: old, imported, or one-phase
	Records    int64         `json:"records"`
	Tables     []TableReport `json:"tables"`
	NotCovered []string      `json:"not_covered"` // "storage/namespace.table" without transaction columns
}

// TableReport is the result for one table (or for the coordinator table, whose Coordinator is true).
type TableReport struct {
	Storage      string `json:"storage"`
	Table        string `json:"table"` // "namespace.table"
	Coordinator  bool   `json:"coordinator,omitempty"`
	Rows         int64  `json:"rows"`
	Leftovers    int64  `json:"leftovers"`
	Unverifiable int64  `json:"unverifiable"`
	// Uncounted: the table was too large to look all its old records up in another storage's coordinator table, for the count of Unverifiable only.
	Uncounted bool             `json:"unverifiable_uncounted,omitempty"`
	ByRule    map[string]int64 `json:"violations,omitempty"` // rule name to count
	// Samples name the first few violations: "RULE: KEY: what is wrong".
	Samples []string `json:"samples,omitempty"`
}

// Names of the four rules in reports.
const (
	RuleInFlight = "in flight"
	RuleLate     = "late"
	RuleAtomic   = "atomic"
	RuleComplete = "complete"
)
