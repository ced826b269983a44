package timesync

import (
	"context"

	"ntsclient/nts"
)

// network is how servers are reached. Tests have one of their own, in which
// months go by at once.
type network interface {
	KeyExchange(context.Context, *nts.Options) (*nts.Session, error)
	Exchange(context.Context, *nts.Session, nts.Route) (*nts.Sample, error)
}

// wire is the real one.
type wire struct{}

func (wire) KeyExchange(ctx context.Context, o *nts.Options) (*nts.Session, error) {
	return nts.KeyExchange(ctx, o)
}

func (wire) Exchange(ctx context.Context, s *nts.Session, r nts.Route) (*nts.Sample, error) {
	return s.Exchange(ctx, r)
}
