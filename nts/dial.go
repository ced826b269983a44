package nts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

const (
	// stagger is RFC 8305's Connection Attempt Delay.
	stagger = 250 * time.Millisecond
	// maxAddrs bounds what a name can make us try.
	maxAddrs = 16
)

// ErrResolver says that a resolver answers, and fails.
var ErrResolver = errors.New("the resolver fails")

// serverFailure is the library's word for SERVFAIL and REFUSED (RFC 1035
// §4.1.1).
const serverFailure = "server misbehaving"

// lookup is where host may be found, in the order to try: families alternate,
// IPv6 first (RFC 8305 §4).
func (o *Options) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return o.order(host, []netip.Addr{addr})
	}
	found, err := o.resolve(ctx, o.network(), host)
	if err == nil {
		return o.order(host, found)
	}
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, fail(StageDNS, DNSNotFound, "the name %s does not exist", host).
			hint("check the spelling, or give `ips`")
	}
	mend := "is the network up, and the resolver in /etc/resolv.conf the right one? `ips` needs none"
	switch {
	case ctx.Err() != nil:
		err = errors.New("no resolver answers in time")
	case dns != nil && dns.Err == serverFailure:
		err = fmt.Errorf("%w (%s)", ErrResolver, dns.Server)
		mend = "one that checks DNSSEC or speaks DNS over TLS needs the right time itself: `ips` needs none"
	}
	return nil, fail(StageDNS, DNSFailed, "looking up %s: %w", host, err).hint("%s", mend)
}

func (o *Options) order(host string, found []netip.Addr) ([]netip.Addr, error) {
	var six, four []netip.Addr
	unfit := false
	for _, addr := range found {
		switch addr = addr.Unmap(); {
		case !usableAddr(addr) || !o.wanted(addr):
		case o.Proxy == nil && !o.Bind.fits(addr):
			unfit = true
		case addr.Is4():
			four = append(four, addr)
		default:
			six = append(six, addr)
		}
	}
	var all []netip.Addr
	for i := range max(len(six), len(four)) {
		all = append(all, six[min(i, len(six)):min(i+1, len(six))]...)
		all = append(all, four[min(i, len(four)):min(i+1, len(four))]...)
	}
	if len(all) == 0 && unfit {
		return nil, fail(StageConnect, ConnectUnreachable, "`bind`: %s has no address of the family of %s", host, o.Bind.Addr).
			hint("bind to an interface, or to an address of the other family")
	}
	if len(all) == 0 {
		return nil, fail(StageDNS, DNSNotFound, "%s has no address of the family asked for", host)
	}
	return all[:min(len(all), maxAddrs)], nil
}

// keAddrs is where the key exchange may be.
func (o *Options) keAddrs(ctx context.Context) ([]netip.Addr, error) {
	if len(o.IPs) > 0 {
		return o.order(o.Host, o.IPs)
	}
	addrs, err := o.lookup(ctx, o.Host)
	if err != nil && len(o.Fallback) > 0 {
		return o.order(o.Host, o.Fallback)
	}
	return addrs, err
}

// connect is a connection to the key exchange, and the address at its other end,
// which is not valid where only a proxy knows it.
func (o *Options) connect(ctx context.Context) (net.Conn, netip.Addr, error) {
	if o.Proxy != nil {
		t, err := o.connectBoth(ctx)
		if err != nil {
			return nil, netip.Addr{}, err
		}
		return t, t.peer, nil
	}
	addrs, err := o.keAddrs(ctx)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	conn, err := o.dialTCP(ctx, addrs, o.Port)
	if err != nil {
		return nil, netip.Addr{}, err
	}
	return conn, addrOf(conn.RemoteAddr()), nil
}

func addrOf(a net.Addr) netip.Addr { return a.(*net.TCPAddr).AddrPort().Addr().Unmap() }

type dialFunc func(context.Context, netip.Addr) (net.Conn, error)

func race(ctx context.Context, addrs []netip.Addr, dial dialFunc) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(addrs))
	started, ended := 0, 0
	start := func() {
		addr := addrs[started]
		started++
		go func() {
			conn, err := dial(ctx, addr)
			results <- result{conn, err}
		}()
	}
	closeRest := func() {
		for range started - ended {
			if r := <-results; r.conn != nil {
				r.conn.Close()
			}
		}
	}
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	var errs []error
	start()
	for {
		select {
		case r := <-results:
			ended++
			if r.err == nil {
				go closeRest()
				return r.conn, nil
			}
			errs = append(errs, r.err)
			if ended == len(addrs) {
				return nil, connectError(errs)
			}
		case <-timer.C:
		}
		if started < len(addrs) {
			start()
			timer.Reset(stagger)
		}
	}
}

// connectError picks the most telling of the attempts' errors.
func connectError(errs []error) *Error {
	var ours *Error
	if errors.As(errs[0], &ours) {
		return ours
	}
	if i := slices.IndexFunc(errs, func(err error) bool {
		return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET)
	}); i >= 0 {
		return fail(StageConnect, ConnectRefused, "%w", errs[i]).
			hint("no NTS key exchange there: check the port (4460 is usual)")
	}
	i := slices.IndexFunc(errs, func(err error) bool {
		var nerr net.Error
		return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &nerr) && nerr.Timeout()
	})
	if i >= 0 {
		return fail(StageConnect, ConnectTimeout, "no connection in time: %w", errs[i]).
			hint("is TCP to that port filtered on the way?")
	}
	return noSocket(StageConnect, errs[0])
}

// noSocket is why nothing could be sent. That this process has too many files
// open is no fault of the network.
func noSocket(stage Stage, err error) *Error {
	var ours *Error
	if errors.As(err, &ours) {
		return ours
	}
	if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
		return fail(StageInternal, Internal, "%w", err).hint("raise the limit of open files (ulimit -n)")
	}
	return fail(stage, ConnectUnreachable, "%w", err).hint("is the network up?")
}
