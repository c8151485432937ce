package retriable

import (
	"context"
	"fmt"
	"log/slog"
	"time"
)

// Logging is a middleware that logs every attempt: which record, which attempt, how long it took and what the handler's return means. What is
// done is told at debug level, all else at info. Like the library's own log it names no key, no value, no header and no error text, of an error
// the type alone. A nil l is slog.Default().
//
// As the first of [Use] it times all middleware with the handler; as the last, the handler alone.
func Logging(l *slog.Logger) Middleware {
	return func(next Handler) Handler {
		return HandlerFunc(func(ctx context.Context, m *Message) error {
			began := time.Now()
			err := next.Handle(ctx, m)
			log := l
			if log == nil {
				log = slog.Default()
			}
			level, attrs := slog.LevelDebug, []slog.Attr{
				slog.Any("record", m.Source), slog.Int("attempt", m.Attempt), slog.Duration("took", time.Since(began)),
			}
			if v := VerdictOf(err); v != VerdictDone {
				level = slog.LevelInfo
				attrs = append(attrs, slog.String("verdict", string(v)), slog.String("error", errorType(err)))
			}
			log.LogAttrs(ctx, level, "retriable: an attempt", attrs...)
			return err
		})
	}
}

// errorType names the type of a handler's error, or of what its verdict wraps.
func errorType(err error) string {
	if v, ok := err.(*verdict); ok && v.err != nil { //nolint:errorlint // the outermost, to look inside
		err = v.err
	}
	return fmt.Sprintf("%T", err)
}
