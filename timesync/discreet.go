package timesync

import (
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
)

// discreet is a log that, while there is a proxy, says nothing of servers above
// the level of debugging: whom a machine asks for the time is what the proxy is
// there to hide, and logs travel.
type discreet struct {
	slog.Handler
	on *atomic.Bool
}

// harmless are the attributes that tell nothing of servers. One that is not
// here is not seen above the level of debugging.
var harmless = []string{
	"offset", "uncertainty", "servers", "frequency", "in", "again_in", "by", "seconds", "suspended",
	"file", "error", "found", "proxy",
}

func (d discreet) Handle(ctx context.Context, r slog.Record) error {
	if !d.on.Load() || r.Level <= slog.LevelDebug {
		return d.Handler.Handle(ctx, r)
	}
	open := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	about := false // one server
	r.Attrs(func(a slog.Attr) bool {
		about = about || a.Key == "server"
		if slices.Contains(harmless, a.Key) {
			open.AddAttrs(a)
		}
		return true
	})
	if open.NumAttrs() < r.NumAttrs() && d.Enabled(ctx, slog.LevelDebug) {
		whole := r.Clone()
		whole.Level = slog.LevelDebug
		if err := d.Handler.Handle(ctx, whole); err != nil {
			return err
		}
	}
	if about {
		return nil
	}
	return d.Handler.Handle(ctx, open)
}

func (d discreet) WithAttrs(attrs []slog.Attr) slog.Handler {
	return discreet{d.Handler.WithAttrs(attrs), d.on}
}

func (d discreet) WithGroup(name string) slog.Handler {
	return discreet{d.Handler.WithGroup(name), d.on}
}

// proxied tells whether any of them is reached through a proxy.
func proxied(servers []Server) bool {
	return slices.ContainsFunc(servers, func(s Server) bool { return s.NTS.Proxy != nil })
}
