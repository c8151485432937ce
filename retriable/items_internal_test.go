package retriable

import (
	"testing"

	"github.com/retriable-kafka/retriable-go/retriable/internal/watermark"
)

// Only what nobody can speak of is used again: one record that was more than a record of its batch keeps all of the batch's items.
func TestItemsAreUsedAgainOnlyIfAllOfThemSimplySucceeded(t *testing.T) {
	ends := map[string]func(it *item){
		"was held":      func(it *item) { it.own.Store(new(own)); it.plainly(); it.end() },
		"was handed on": func(it *item) { it.marks |= listed; it.plainly(); it.end() },
		"failed":        func(it *item) { it.end() },
		"was cut off":   func(it *item) { it.Done() },
	}
	batch := func(last func(it *item)) *run {
		r := &run{slab: slabFor(20), slots: make([]watermark.Slot, 20)}
		r.items = (*r.slab)[:20]
		for i := range r.items {
			it := &r.items[i]
			it.Slot, it.offset = &r.slots[i], int64(i)
			if i < 19 {
				it.plainly()
				it.end()
			}
		}
		last(&r.items[19])
		return r
	}
	for name, end := range ends {
		if r := batch(end); r.reuse() || r.items[0].offset != 0 || r.items[19].offset != 19 {
			t.Errorf("the items of a batch of which one %s were used again", name)
		}
	}
	r := batch(func(it *item) { it.plainly(); it.end() })
	items := r.items
	if !r.reuse() || r.items != nil {
		t.Fatal("the items of a batch that simply succeeded were not used again")
	}
	for i := range items {
		if it := &items[i]; it.Slot != nil || it.offset != 0 || it.marks != 0 {
			t.Fatalf("item %d has something of the record before: %+v", i, it.offset)
		}
	}
}
