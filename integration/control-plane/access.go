package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The files of an access, in the state folder.
const (
	authorityFile      = "ca.crt"
	certificateFile    = "server.crt"
	certificateKeyFile = "server.key"
	signingKeyFile     = "service-accounts.key"
	tokenFile          = "admin.token"
	tokensFile         = "tokens.csv"
	kubeconfigFile     = "kubeconfig"
)

// access is how the API is reached and trusted: made once in the state folder, read again later.
type access struct {
	dir       string
	server    string
	token     string
	authority []byte
}

// openAccess reads what the folder holds, and makes what is not there yet.
func openAccess(dir string, address net.IP, port int) (*access, error) {
	a := &access{dir: dir, server: "https://" + net.JoinHostPort(address.String(), strconv.Itoa(port))}
	if err := a.openToken(); err != nil {
		return nil, err
	}
	if err := a.openSigningKey(); err != nil {
		return nil, err
	}
	if err := a.openCertificate(address); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *access) path(name string) string {
	return filepath.Join(a.dir, name)
}

// openToken reads or draws the admin's token, and lists it for the server.
func (a *access) openToken() error {
	token, err := os.ReadFile(a.path(tokenFile))
	if errors.Is(err, fs.ErrNotExist) {
		raw := make([]byte, 16)
		if _, err := rand.Read(raw); err != nil {
			return err
		}
		token = []byte(hex.EncodeToString(raw))
		err = os.WriteFile(a.path(tokenFile), token, 0o600)
	}
	if err != nil {
		return err
	}
	a.token = string(token)
	return os.WriteFile(a.path(tokensFile), []byte(a.token+",admin,1,\"system:masters\"\n"), 0o600)
}

// openSigningKey keeps the key that signs the tokens of service accounts, so that they outlive a restart.
func (a *access) openSigningKey() error {
	if _, err := os.Stat(a.path(signingKeyFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := newKey(a.path(signingKeyFile))
	return err
}

// openCertificate keeps an authority of its own and one certificate signed by it, so that a client can check
// the server as it checks a real one. The authority's key is thrown away at once.
func (a *access) openCertificate(address net.IP) error {
	authority, err := os.ReadFile(a.path(authorityFile))
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = a.newCertificate(address)
	}
	a.authority = authority
	return err
}

// newCertificate writes authority, certificate and key, and returns the authority as PEM.
func (a *access) newCertificate(address net.IP) ([]byte, error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "control-plane of tests"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(365 * 24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"},
		IPAddresses: []net.IP{address, net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(10, 96, 0, 1)},
	}
	serverKey, err := newKey(a.path(certificateKeyFile))
	if err != nil {
		return nil, err
	}
	signed, err := x509.CreateCertificate(rand.Reader, server, authority, serverKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	if err := writePEM(a.path(certificateFile), "CERTIFICATE", signed); err != nil {
		return nil, err
	}
	selfSigned, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	// Last, because its presence says that the others are there.
	if err := writePEM(a.path(authorityFile), "CERTIFICATE", selfSigned); err != nil {
		return nil, err
	}
	return os.ReadFile(a.path(authorityFile))
}

// client trusts the authority, and nothing else.
func (a *access) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(a.authority)
	return &http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}
}

// writeKubeconfig writes the admin's kubeconfig and returns its path.
func (a *access) writeKubeconfig() (string, error) {
	text := strings.Join([]string{
		"apiVersion: v1",
		"kind: Config",
		fmt.Sprintf("clusters: [{name: test, cluster: {server: %q, certificate-authority-data: %s}}]",
			a.server, base64.StdEncoding.EncodeToString(a.authority)),
		fmt.Sprintf("users: [{name: admin, user: {token: %q}}]", a.token),
		"contexts: [{name: test, context: {cluster: test, user: admin}}]",
		"current-context: test",
		"",
	}, "\n")
	return a.path(kubeconfigFile), os.WriteFile(a.path(kubeconfigFile), []byte(text), 0o600)
}

// newKey draws a key and writes it.
func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
