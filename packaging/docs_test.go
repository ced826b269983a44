package packaging

import (
	"regexp"
	"strings"
	"testing"

	"ntsclient/config"
)

// What the guide says to write can be written: each row's settings, under the
// table that it names, and each example.
func TestMigrating(t *testing.T) {
	text := read(t, "../docs/migrating.md")
	const server = "[[server]]\naddress = \"one.example.net\"\n[[server]]\naddress = \"two.example.org\"\n[[server]]\naddress = \"three.example\"\n"
	rows := 0
	for _, line := range strings.Split(text, "\n") {
		cells := strings.Split(line, " | ")
		if len(cells) != 2 {
			continue
		}
		general, table, tables := "", "", ""
		for _, code := range regexp.MustCompile("`([^`]*)`").FindAllStringSubmatch(cells[1], -1) {
			setting := strings.ReplaceAll(code[1], `"FILE"`, `""`)
			switch {
			case strings.HasPrefix(setting, "["):
				table = setting
				tables += table + "\n"
			case strings.Contains(setting, " = "):
				rows++
				key, _, _ := strings.Cut(setting, " = ")
				switch {
				case table == "[[server]]" && key == "address":
					tables += setting + "\n"
				case key == "address":
					tables += "[[server]]\n" + setting + "\n"
				case key == "ca_file":
					tables += "[[server]]\naddress = \"other.example\"\n" + setting + "\n"
				case key == "step_above" && table == "", key == "step" && table == "":
					tables += "[clock]\n" + setting + "\n"
					table = "[clock]"
				case table == "":
					general += setting + "\n"
				default:
					tables += setting + "\n"
				}
			}
		}
		if strings.HasSuffix(tables, "[[server]]\n") { // named without an example
			tables += "address = \"other.example\"\n"
		}
		tables = strings.ReplaceAll(tables, "[[server]]\n[[server]]\n", "[[server]]\n")
		if _, err := config.Parse("row", []byte(general+server+tables), nil); err != nil {
			t.Errorf("%s\n%v", line, err)
		}
	}
	if rows < 20 {
		t.Errorf("the tables are not understood: %d settings in them", rows)
	}
	for _, example := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllStringSubmatch(text, -1) {
		if _, err := config.Parse("example", []byte(example[1]), nil); err != nil {
			t.Errorf("%s\n%v", example[1], err)
		}
	}
}
