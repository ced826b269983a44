// Package confine gives up what a process has and does not need: on every one
// of its threads, and for good. No unit protects a program that is started by
// hand or from cron; this does.
package confine

// Needs is what stays.
type Needs struct {
	SetClock bool     // CAP_SYS_TIME, if the process has it
	State    string   // directory to be written, as if in Write: root becomes the user whom it belongs to; may be ""
	Write    []string // other directories in which files and sockets may be made, changed and removed

	// Bounding asks to empty the bounding set of capabilities, too, which
	// limits what programs that it starts may have. It starts none, they would
	// get nothing by no_new_privs, and it takes a millisecond, much more on a
	// slow machine: for those that run for long.
	Bounding bool
}

// Apply gives up everything else: to write anywhere but there and to /dev/null
// (Landlock; whatever is open stays so), to start programs that may do more
// (no_new_privs), and all capabilities. Directories that are not there cannot
// be made later on. Reading stays.
//
// What the kernel lacks is left out, and the error says what: nothing to stop
// for.
func Apply(n Needs) error { return n.apply() }
