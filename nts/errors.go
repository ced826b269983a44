package nts

import (
	"errors"
	"fmt"
)

// Stage is the link of the chain at which getting time from a server failed.
type Stage string

// The stages, in the order in which they are passed.
const (
	StageDNS         Stage = "dns"
	StageConnect     Stage = "connect"
	StageTLS         Stage = "tls"
	StageCertificate Stage = "certificate"
	StageKeyExchange Stage = "key_exchange"
	StageExchange    Stage = "exchange"
	StageProxy       Stage = "proxy"
	StageInternal    Stage = "internal"
)

// Code names a failure for scripts.
type Code string

// The codes. People script against them: they are never renamed.
const (
	DNSNotFound Code = "dns_not_found"
	DNSFailed   Code = "dns_failed"

	ConnectRefused     Code = "connect_refused"
	ConnectTimeout     Code = "connect_timeout"
	ConnectUnreachable Code = "connect_unreachable"

	TLSFailed  Code = "tls_failed"
	TLSVersion Code = "tls_version"
	TLSNoALPN  Code = "tls_no_alpn"
	TLSTimeout Code = "tls_timeout"

	CertificateExpired          Code = "certificate_expired"
	CertificateNotYetValid      Code = "certificate_not_yet_valid"
	CertificateUnknownAuthority Code = "certificate_unknown_authority"
	CertificateWrongName        Code = "certificate_wrong_name"
	CertificatePinMismatch      Code = "certificate_pin_mismatch"
	CertificateInvalid          Code = "certificate_invalid"

	KEError      Code = "ke_error"
	KEWarning    Code = "ke_warning"
	KEMalformed  Code = "ke_malformed"
	KETooLarge   Code = "ke_too_large"
	KETimeout    Code = "ke_timeout"
	KENoProtocol Code = "ke_no_protocol"
	KENoAEAD     Code = "ke_no_aead"
	KENoCookies  Code = "ke_no_cookies"

	ExchangeTimeout         Code = "exchange_timeout"
	ExchangeUnauthenticated Code = "exchange_unauthenticated"
	ExchangeNAK             Code = "exchange_nak"
	ExchangeKiss            Code = "exchange_kiss"

	ProxyFailed Code = "proxy_failed"
	ProxyNoUDP  Code = "proxy_no_udp"

	Deadline Code = "deadline"
	Internal Code = "internal"
)

// Error is a failure to get time from one server. Its text does not name the
// server: who prints it does.
type Error struct {
	Stage Stage
	Code  Code
	Hint  string // the mend, where there is one to name
	Kiss  string // the kiss code, where Code is ExchangeKiss: "RATE", "DENY", …
	Sure  bool   // and that was authenticated

	Octets int // of the request, where Code is ExchangeTimeout

	Err error
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// CodeOf is the code of the Error in err's chain, or Internal.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Internal
}

func fail(stage Stage, code Code, format string, args ...any) *Error {
	return &Error{Stage: stage, Code: code, Err: fmt.Errorf(format, args...)}
}

func (e *Error) hint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}
