// Command kubelet serves what the API server asks a node's kubelet for when somebody runs a program in a pod, for tests.
//
// The protocol is that of the real one, by the library that container runtimes serve it with. There are no containers: the
// program named /postern is one of the machine, run in the namespaces of this process, and any other is not found. It
// prints "ready PORT" once it listens, and ends when its standard input closes, so that it cannot outlive its test.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
)

const (
	// program is the only one in the image of the agent.
	program = "/postern"
	// idle is how long a stream may be silent, as kubelet has it.
	idle = 4 * time.Hour
	// creation is how long the streams of a connection may take to begin, as kubelet has it.
	creation = 30 * time.Second
)

// node runs what is asked for.
type node struct {
	// postern is the program of the machine that stands for the image's.
	postern string
	// delay is how long a program waits before it starts.
	delay time.Duration
}

func main() {
	address := net.IPv4(127, 0, 0, 1)
	var n node
	flag.TextVar(&address, "address", address, "address to listen on")
	flag.StringVar(&n.postern, "postern", "", "the program that is run for "+program)
	flag.DurationVar(&n.delay, "delay", 0, "how long a program waits before it starts")
	flag.Parse()
	if err := run(address, n); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet:", err)
		os.Exit(1)
	}
}

// run serves until standard input closes.
func run(address net.IP, n node) error {
	certificate, err := selfSigned(address)
	if err != nil {
		return err
	}
	listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: address})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", n.serveExec)
	// Streams are upgraded, which HTTP/2 does not know.
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"http/1.1"}}
	fmt.Println("ready", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server := &http.Server{Handler: mux, ReadHeaderTimeout: creation}
	return server.Serve(tls.NewListener(listener, config))
}

func (n node) serveExec(w http.ResponseWriter, r *http.Request) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := r.PathValue("namespace") + "/" + r.PathValue("pod")
	command := r.URL.Query()["command"]
	protocols := remotecommand.SupportedStreamingProtocols
	remotecommand.ServeExec(w, r, n, pod, "", r.PathValue("container"), command, options, idle, creation, protocols)
}

// ExecInContainer runs a program and copies its streams. As with a container runtime, the end of a connection ends its
// standard input, and not the program.
func (n node) ExecInContainer(ctx context.Context, pod, _, _ string, command []string, in io.Reader,
	out, errors io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize, _ time.Duration,
) error {
	if len(command) == 0 || command[0] != program {
		return fmt.Errorf("no such program in pod %s: %q", pod, command)
	}
	time.Sleep(n.delay)
	process := exec.Command(n.postern, command[1:]...)
	process.Stdout, process.Stderr = out, errors
	if in != nil {
		// Not Stdin, which is waited for after the program has ended.
		input, err := process.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			_, _ = io.Copy(input, in)
			_ = input.Close()
		}()
	}
	err := process.Run()
	if ended, ok := err.(*exec.ExitError); ok {
		return utilexec.CodeExitError{Err: ended, Code: ended.ExitCode()}
	}
	return err
}

// selfSigned makes the certificate that kubelet makes of itself where nobody signs one for it.
func selfSigned(address net.IP) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{address},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
