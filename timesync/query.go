package timesync

import (
	"context"
	"errors"

	"ntsclient/timesync/report"
)

// Query measures once and says what is agreed on. It touches nothing.
func (c *Client) Query(ctx context.Context) (*report.Report, error) {
	r, err := c.query(ctx, "query")
	if err != nil {
		return nil, err
	}
	return r.report, nil
}

func (c *Client) query(ctx context.Context, command string) (*round, error) {
	c.command = command
	// Where no kernel says how wrong it is, dates are not in doubt.
	if err := c.judge(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return nil, err
	}
	r := c.once(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d := r.decision; d.Refused {
		r.report.ReasonCode, r.report.Reason = "would_refuse", "sync would refuse: "+d.Reason
	} else if d.Action == report.Step {
		r.report.ReasonCode, r.report.Reason = "would_step", "sync would step the clock"
	}
	return r, nil
}
