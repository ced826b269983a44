//go:build unix

package report

import (
	"net"
	"syscall"
)

// listenForAll makes a socket with mode 0666, whatever the umask. The mode is not
// set afterwards: by then the name may be a link to anything, if the directory
// belongs to somebody with fewer rights than this process.
func listenForAll(path string) (net.Listener, error) {
	defer syscall.Umask(syscall.Umask(0o111))
	return net.Listen("unix", path)
}
