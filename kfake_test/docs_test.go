package kfake_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The documents promise things and name the test of each: those tests exist.
func TestTheTestsThatDocumentsNameExist(t *testing.T) {
	t.Parallel()
	const root = ".."
	exist := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, found := range declared.FindAllSubmatch(text, -1) {
			exist[string(found[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(documents) == 0 {
		t.Fatalf("no documents: %v", err)
	}
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
	n := 0
	for _, path := range documents {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range named.FindAllSubmatch(text, -1) {
			n++
			if name := string(found[1]); !exist[name] {
				t.Errorf("%s names %s, which does not exist", path, name)
			}
		}
	}
	if n == 0 {
		t.Error("no document names a test")
	}
}

// Whoever is told why a record is stuck finds under that word what to do.
func TestEveryReasonHasItsRunbook(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join("..", "retriable", "stats.go"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("..", "docs", "runbooks.md"))
	if err != nil {
		t.Fatal(err)
	}
	reasons := regexp.MustCompile(`(?m)^\s*Reason\w+\s+Reason = "([a-z]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(reasons) < 6 {
		t.Fatalf("only %d reasons are found", len(reasons))
	}
	for _, r := range reasons {
		if !strings.Contains(string(text), "\n## "+r[1]+"\n") {
			t.Errorf("docs/runbooks.md has no section %q", r[1])
		}
		if !strings.Contains(string(text), "\n| ["+r[1]+"](#"+r[1]+") |") {
			t.Errorf("the table of docs/runbooks.md lacks %q", r[1])
		}
	}
}

// Links between documents lead somewhere.
func TestLinksBetweenDocumentsLeadSomewhere(t *testing.T) {
	t.Parallel()
	const root = ".."
	documents, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, filepath.Join(root, "README.md"))
	more, err := filepath.Glob(filepath.Join(root, "plugin", "*", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	for _, path := range append(documents, more...) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(string(text), -1) {
			target := path
			if found[1] != "" {
				target = filepath.Join(filepath.Dir(path), found[1])
			}
			content, err := os.ReadFile(target)
			if err != nil {
				if info, is := os.Stat(target); is != nil || !info.IsDir() {
					t.Errorf("%s links to %s: %v", path, found[1], err)
				}
				continue
			}
			if found[2] != "" && !hasHeading(string(content), found[2]) {
				t.Errorf("%s links to %s#%s, a heading that is not there", path, found[1], found[2])
			}
		}
	}
}

// hasHeading reports whether a document has a heading that is linked to by that name.
func hasHeading(text, anchor string) bool {
	strip := regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	for _, h := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		if strings.ReplaceAll(strip.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor {
			return true
		}
	}
	return false
}
