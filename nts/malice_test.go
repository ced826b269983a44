package nts

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// What this package makes of each kind of malice; the program's test has the
// same table. Time is what tells what ends at once and what waits for better.
func TestMalice(t *testing.T) {
	ca, err := ntstest.NewCA("good")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ntstest.Malices() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			// What others do with this machine meanwhile may take all of the time
			// that there is, so that less comes of it: then there is more.
			for _, patience := range []time.Duration{1, 4, 16} {
				s := start(t, m.Options(ca))
				err := endure(t, s, &m, patience)
				if patience < 16 && err != nil && CodeOf(err) != Code(m.Code) {
					continue
				}
				if m.Verdict != "failed" {
					if err != nil {
						t.Error(err)
					}
				} else {
					wantError(t, err, Stage(m.Stage()), Code(m.Code), m.Part)
				}
				if stats := s.Stats(); len(stats.Bad) > 0 != m.Blames || stats.Replayed > 0 {
					t.Errorf("%+v", stats)
				}
				break
			}
		})
	}
}

// endure makes one key exchange, and as many exchanges as a round may have.
func endure(t *testing.T, s *ntstest.Server, m *ntstest.Malice, patience time.Duration) error {
	o := clientOf(s)
	o.Host, o.IPs = "time.test", []netip.Addr{s.KE().Addr()}
	if m.Host != "" {
		o.Host = m.Host
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience*2*time.Second)
	defer cancel()
	session, err := KeyExchange(ctx, o)
	if err != nil {
		return err
	}
	for range 3 {
		var sample *Sample
		before := len(session.Cookies)
		ctx, cancel := context.WithTimeout(t.Context(), patience*time.Second/4)
		defer cancel()
		sample, err = session.Exchange(ctx, Route{})
		if (sample == nil) != (err != nil) {
			t.Errorf("%v and %v", sample, err)
		}
		var e *Error
		if errors.As(err, &e) && !e.Sure && ctx.Err() == nil {
			t.Errorf("it gave up before its time: %v", err)
		}
		if err != nil && !e.Sure && len(session.Cookies) >= before {
			t.Error("a cookie is still there that was sent")
		}
		if err == nil || e.Code == ExchangeKiss || e.Code == ExchangeNAK {
			break
		}
	}
	return err
}
