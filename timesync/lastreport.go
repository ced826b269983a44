package timesync

import (
	"fmt"
	"os"
	"path/filepath"

	"ntsclient/timesync/report"
)

// LastReport reads the report of the last round that was kept in a state
// directory, without a lock: it is replaced as a whole. Everybody may; but it is
// believed only if it belongs to root, to the directory's owner or to this user.
func LastReport(dir string) (*report.Report, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, reportName)
	text, err := readTrusted(path, ownerOf(info))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r, err := report.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
