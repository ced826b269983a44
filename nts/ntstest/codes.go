package ntstest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// Codes are the values of the constants of the type Code in a Go file: all that
// an error of package nts can have, to hold that tests bring each of them about.
func Codes(path string) (codes []string, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if kind, ok := spec.Type.(*ast.Ident); ok && kind.Name == "Code" {
			code, wrong := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			if wrong != nil {
				err = wrong
			}
			codes = append(codes, code)
		}
		return true
	})
	return codes, err
}
