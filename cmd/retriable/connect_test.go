package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

const secret = "a very secret password"

// called runs the program on real sockets and returns all that it printed.
func called(t *testing.T, env map[string]string, args ...string) (code int, printed string) {
	t.Helper()
	var out bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &out, err: &out, env: func(name string) string { return env[name] }, terminal: func(any) bool { return false }}
	code = a.run(t.Context(), args)
	return code, out.String()
}

func file(t *testing.T, name, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// SASL by flags, environment and file; a password is never printed, right or wrong.
func TestSASL(t *testing.T) {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders.dead"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "billing", secret))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	brokers := cluster.ListenAddrs()[0]
	list := []string{"dead", "list", "orders.dead"}
	config := file(t, "config", "# ours\nbrokers = "+brokers+"\nsasl = scram-sha-512\nsasl-user = billing\nsasl-password = "+secret+"\n", 0o600)
	open := file(t, "open", "brokers = "+brokers+"\nsasl = scram-sha-512\nsasl-user = billing\nsasl-password = "+secret+"\n", 0o644)
	wrong := file(t, "wrong", "sasl-pasword = "+secret+"\nnonsense\n", 0o600)
	env := map[string]string{"RETRIABLE_BROKERS": brokers, "RETRIABLE_SASL": "scram-sha-512", "RETRIABLE_SASL_USER": "billing", "RETRIABLE_SASL_PASSWORD": secret}
	for _, c := range []struct {
		name string
		env  map[string]string
		args []string
		code int
		want string
	}{
		{"environment", env, nil, 0, "No letters."},
		{"file", nil, []string{"--config", config}, 0, "No letters."},
		{"file by environment", map[string]string{"RETRIABLE_CONFIG": config}, nil, 0, "No letters."},
		{"file that others may read", nil, []string{"--config", open}, 0, "chmod 600"},
		{"flags", nil, []string{"--brokers", brokers, "--sasl", "scram-sha-512", "--sasl-user", "billing", "--sasl-password-file", file(t, "pw", secret+"\n", 0o600)}, 0, "No letters."},
		{"a flag beats the environment, which beats the file", map[string]string{"RETRIABLE_SASL_USER": "billing", "RETRIABLE_CONFIG": config, "RETRIABLE_BROKERS": "127.0.0.1:1"}, []string{"--brokers", brokers}, 0, "No letters."},
		{"wrong password", map[string]string{"RETRIABLE_CONFIG": config, "RETRIABLE_SASL_PASSWORD": secret + "!"}, nil, 1, "no broker answers"},
		{"no password", nil, []string{"--brokers", brokers, "--sasl", "plain", "--sasl-user", "billing"}, 2, "RETRIABLE_SASL_PASSWORD"},
		{"no mechanism", nil, []string{"--sasl-user", "billing"}, 2, "sasl-user is given, but sasl is not"},
		{"unknown mechanism", env, []string{"--sasl", "gssapi"}, 2, `"gssapi"`},
		{"a file with nonsense", nil, []string{"--config", wrong}, 2, "line 2 is not name = value"},
		{"no such file", nil, []string{"--config", "nowhere"}, 2, "nowhere"},
		{"half of a certificate", nil, []string{"--tls-cert", "x"}, 2, "tls-cert and tls-key go together"},
		{"no CA", nil, []string{"--tls-ca", config}, 2, "holds no certificate"},
		{"a password as a flag", nil, []string{"--sasl-password", secret}, 2, "unknown flag: --sasl-password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, printed := called(t, c.env, append(list, c.args...)...)
			if code != c.code || !strings.Contains(printed, c.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", code, c.code, c.want, printed)
			}
			if strings.Contains(printed, secret) {
				t.Errorf("it prints the password:\n%s", printed)
			}
		})
	}
}

// Mutual TLS with a CA of one's own.
func TestTLS(t *testing.T) {
	certPEM, keyPEM := certificate(t)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders.dead"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}))
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	ca, cert, key := file(t, "ca.pem", string(certPEM), 0o600), file(t, "cert.pem", string(certPEM), 0o600), file(t, "key.pem", string(keyPEM), 0o600)
	list := []string{"dead", "list", "orders.dead", "--brokers", cluster.ListenAddrs()[0]}
	if code, printed := called(t, nil, append(list, "--tls-ca", ca, "--tls-cert", cert, "--tls-key", key)...); code != 0 {
		t.Errorf("exit %d:\n%s", code, printed)
	}
}

func certificate(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// Nobody answers: it says so, and in time.
func TestNoBroker(t *testing.T) {
	bubble(t, "orders", func(b *bed) {
		began := time.Now()
		b.cluster.Close()
		if code, _ := b.call("status", "billing"); code != exitFailed || !strings.Contains(b.last, "no broker answers") {
			t.Errorf("exit %d: %s", code, b.last)
		}
		if took := time.Since(began); took > answerWithin+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// Wrong calls exit with 2 and say what is wrong.
func TestWrongCalls(t *testing.T) {
	for args, want := range map[string]string{
		"bury":                        `unknown command "bury"`,
		"dead bury":                   `dead has no command "bury"`,
		"status":                      "retriable status wants GROUP",
		"status a b":                  "retriable status wants GROUP",
		"status billing --limt 3":     "unknown flag: --limt",
		"dead list x --limit many":    `invalid argument "many"`,
		"dead purge x --all --sent g": "none of the others can be",
	} {
		code, printed := called(t, nil, strings.Fields(args)...)
		if code != exitUsage || !strings.Contains(printed, want) {
			t.Errorf("%s: exit %d, want 2 with %q:\n%s", args, code, want, printed)
		}
	}
}

// Shells can have their completion, and complete names of topics and groups.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if code, printed := called(t, nil, "completion", shell); code != 0 || !strings.Contains(printed, "retriable") {
			t.Errorf("%s: exit %d", shell, code)
		}
	}
	bubble(t, "orders orders.dead", func(b *bed) {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: io.Discard, env: func(string) string { return "" }, terminal: func(any) bool { return false }, dial: b.dial()}
		if code := a.run(t.Context(), []string{"__complete", "--brokers", "127.0.0.1:9092", "dead", "list", ""}); code != 0 || !strings.HasPrefix(out.String(), "orders\norders.dead\n") {
			t.Errorf("exit %d: %q", code, out.String())
		}
	})
}
