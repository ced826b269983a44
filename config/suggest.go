package config

import "strings"

// find is the key of that name, or nil.
func find(name string) *key {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// isTable tells whether some key stands in a table of that name.
func isTable(name string) bool {
	for _, k := range keys {
		if table, _ := split(k.name); table == name && name != "" {
			return true
		}
	}
	return false
}

// split parts "measure.samples" at its last dot.
func split(name string) (table, last string) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// moved explains the keys of the original ntsclient.
var moved = map[string]string{
	"cacert":   "it is ca_file now, below the [[server]] that it is for",
	"interval": "how often the loop measures is min_poll and max_poll under [run]; interval under [measure] is the time between two samples",
}

// unknownHint says what an unknown key or table may have been meant to be: a key in the wrong table, or a typing error.
func unknownHint(name string) string {
	if hint, ok := moved[name]; ok {
		return hint
	}
	table, last := split(name)
	var homes, near []string
	for _, k := range keys {
		home, word := split(k.name)
		switch {
		case word == last && home == "":
			return "it belongs to no table: move it above the first [table]"
		case word == last && home == "server":
			homes = append(homes, "[[server]]")
		case word == last:
			homes = append(homes, "["+home+"]")
		}
		if home == table {
			near = append(near, word)
		}
		if table == "" {
			near = append(near, home)
		}
	}
	if homes != nil {
		return "it belongs under " + strings.Join(homes, " or ")
	}
	if hint := didYouMean(last, near); hint != "" {
		return hint
	}
	if table == "server" {
		return "the keys of a server are " + strings.Join(near, ", ")
	}
	for _, k := range keys {
		near = append(near, k.name)
		if _, word := split(k.name); distance(last, word) <= 1 {
			return `did you mean "` + k.name + `"?`
		}
	}
	return didYouMean(name, near)
}

// didYouMean offers the nearest of some words, if one is near.
func didYouMean(word string, words []string) string {
	if len(word) > 64 {
		return ""
	}
	word = strings.ReplaceAll(strings.ToLower(word), "-", "_")
	best, least := "", 3
	for _, w := range words {
		if d := distance(word, w); d < least && d < len(w)/2+1 {
			best, least = w, d
		}
	}
	if best == "" {
		return ""
	}
	return `did you mean "` + best + `"?`
}

// distance counts the insertions, deletions and substitutions of octets between two words (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0]++
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
