package retriable

// Workers is a pool of workers for several consumers of one process, so that together they run no more handlers at once than it has. It is
// made with [NewWorkers] and given to each of them with [SharedWorkers].
type Workers struct{ pool *pool }

// NewWorkers makes a pool of n workers. They start with the first consumer's Run and end with the last one's; after that it can be used again.
func NewWorkers(n int) *Workers { return &Workers{newPool(n)} }

// SharedWorkers has the consumer run its handlers in w, instead of in workers of its own: [Concurrency] is refused beside it. A free worker goes to the
// consumer with the fewest, then to the one that waited longest; while there are others none has more than three quarters of them. Lending
// (see [Concurrency]) is over all. Stats.Workers is the size of the pool.
func SharedWorkers(w *Workers) Option {
	return option(func(c *config) { c.workers, c.shared = w, true })
}

// guest is a consumer as its pool knows it; guarded by the pool's lock.
type guest struct {
	ready    readyHeap // its partitions that have work and may have one more worker
	attached int       // workers at its partitions
	turn     uint64    // of the last
}

// host makes a consumer known to the pool. The lock is held.
func (pl *pool) host(g *guest) {
	for _, h := range pl.guests {
		if h == g {
			return
		}
	}
	pl.guests = append(pl.guests, g)
}

// dismiss forgets it: who is left alone may have all workers, also at partitions that it was at its bound for. The lock is held.
func (pl *pool) dismiss(g *guest) {
	kept := pl.guests[:0]
	for _, h := range pl.guests {
		if h != g {
			kept = append(kept, h)
		}
	}
	clear(pl.guests[len(kept):])
	pl.guests = kept
	pl.updateAll()
}

// mayHave reports whether a consumer may have one more worker: of several none has more than three quarters. The lock is held.
func (pl *pool) mayHave(g *guest) bool { return len(pl.guests) < 2 || g.attached < pl.most() }

// count notes that a worker came to a consumer, or left it: at its bound that concerns all its partitions. The lock is held.
func (pl *pool) count(g *guest, n int) {
	before := pl.mayHave(g)
	g.attached += n
	if before != pl.mayHave(g) {
		for p := range pl.parts {
			if &p.c.guest == g {
				pl.update(p)
			}
		}
	}
}

// turnOf returns the consumer whose turn it is: of those with work the one with the fewest workers, then the one that waited longest; nil for
// none. The lock is held.
func (pl *pool) turnOf() (best *guest) {
	for _, g := range pl.guests {
		if len(g.ready) == 0 {
			continue
		}
		if best == nil || g.attached < best.attached || g.attached == best.attached && g.turn < best.turn {
			best = g
		}
	}
	return best
}
