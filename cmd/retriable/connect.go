package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// connection is how to reach the brokers, as flags, environment and file say it.
type connection struct {
	set    *pflag.FlagSet
	config string
	// values are by the names of the flags.
	values map[string]string
}

// The settings. The password has no flag.
const (
	setBrokers      = "brokers"
	setTLS          = "tls"
	setCA           = "tls-ca"
	setCert         = "tls-cert"
	setKey          = "tls-key"
	setServerName   = "tls-server-name"
	setMechanism    = "sasl"
	setUser         = "sasl-user"
	setPassword     = "sasl-password"
	setPasswordFile = "sasl-password-file"
)

var settings = []string{setBrokers, setTLS, setCA, setCert, setKey, setServerName, setMechanism, setUser, setPassword, setPasswordFile}

func (c *connection) flags(f *pflag.FlagSet) {
	c.set = f
	f.StringP(setBrokers, "b", "", "brokers to begin with, as host:port,… (default localhost:9092)")
	f.StringVar(&c.config, "config", "", "a file with these settings, a name = value each line")
	f.Bool(setTLS, false, "use TLS; said by itself with any other --tls setting")
	f.String(setCA, "", "a PEM file with the certificates to trust (default the system's)")
	f.String(setCert, "", "a PEM file with the client's certificate, for mutual TLS")
	f.String(setKey, "", "a PEM file with its key")
	f.String(setServerName, "", "the name in the brokers' certificates, if it is not their host")
	f.String(setMechanism, "", "plain, scram-sha-256 or scram-sha-512")
	f.String(setUser, "", "the user for SASL")
	f.String(setPasswordFile, "", "a file with the password for SASL")
}

// options makes options of what flags, environment and file say; the first that says something counts.
func (c *connection) options(a *app) ([]kgo.Opt, error) {
	file, err := c.file(a)
	if err != nil {
		return nil, err
	}
	c.values = map[string]string{}
	for _, name := range settings {
		if v, ok := file[name]; ok {
			c.values[name] = v
		}
		if v := a.env("RETRIABLE_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))); v != "" {
			c.values[name] = v
		}
		if f := c.set.Lookup(name); f != nil && f.Changed {
			c.values[name] = f.Value.String()
		}
	}
	brokers := "localhost:9092"
	if v := c.values[setBrokers]; v != "" {
		brokers = v
	}
	opts := []kgo.Opt{kgo.SeedBrokers(strings.FieldsFunc(brokers, func(r rune) bool { return r == ',' || r == ' ' })...), kgo.ClientID("retriable-cli")}
	t, errTLS := c.tls()
	if t != nil {
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	m, errSASL := c.sasl()
	if m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	return opts, errors.Join(errTLS, errSASL)
}

// file reads the settings of the file, if there is one.
func (c *connection) file(a *app) (map[string]string, error) {
	name, must := c.config, true
	if name == "" {
		name = a.env("RETRIABLE_CONFIG")
	}
	if name == "" {
		dir, err := os.UserConfigDir()
		if err != nil || a.env("HOME") == "" && a.env("XDG_CONFIG_HOME") == "" {
			return nil, nil //nolint:nilerr // no folder, no file
		}
		name, must = filepath.Join(dir, "retriable", "config"), false
	}
	b, err := readFile("the configuration", name)
	if errors.Is(err, os.ErrNotExist) && !must {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if info, err := os.Stat(name); err == nil && m[setPassword] != "" && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(a.err, "retriable: %s holds a password, and others may read it: chmod 600\n", name)
	}
	return m, nil
}

// parse reads name = value lines; # begins a comment line. Errors name lines, never values.
func parse(b []byte) (map[string]string, error) {
	m := map[string]string{}
	var errs []error
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("line %d is not name = value", n))
		case !slices.Contains(settings, name):
			errs = append(errs, fmt.Errorf("line %d: there is no setting of this name; there are %s", n, strings.Join(settings, ", ")))
		default:
			m[name] = strings.TrimSpace(value)
		}
	}
	return m, errors.Join(append(errs, lines.Err())...)
}

// tls makes the configuration; nil for none.
func (c *connection) tls() (*tls.Config, error) {
	on := false
	if v := c.values[setTLS]; v != "" {
		var err error
		if on, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("%s is %q, not true or false", setTLS, v)
		}
	} else {
		on = c.values[setCA] != "" || c.values[setCert] != "" || c.values[setKey] != "" || c.values[setServerName] != ""
	}
	if !on {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.values[setServerName]}
	if name := c.values[setCA]; name != "" {
		pem, err := readFile(setCA, name)
		if err != nil {
			return nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s holds no certificate", setCA, name)
		}
	}
	cert, key := c.values[setCert], c.values[setKey]
	if (cert == "") != (key == "") {
		return nil, fmt.Errorf("%s and %s go together", setCert, setKey)
	}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", setCert, setKey, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// sasl makes the mechanism; nil for none. Errors never hold the password.
func (c *connection) sasl() (sasl.Mechanism, error) {
	mechanism, user, password := c.values[setMechanism], c.values[setUser], c.values[setPassword]
	if name := c.values[setPasswordFile]; name != "" {
		b, err := readFile(setPasswordFile, name)
		if err != nil {
			return nil, err
		}
		password = strings.TrimRight(string(b), "\r\n")
	}
	switch {
	case mechanism == "" && user == "":
		return nil, nil
	case mechanism == "":
		return nil, fmt.Errorf("%s is given, but %s is not", setUser, setMechanism)
	case user == "" || password == "":
		return nil, fmt.Errorf("%s needs a user (%s) and a password (RETRIABLE_SASL_PASSWORD, %s in the file, or --%s)", setMechanism, setUser, setPassword, setPasswordFile)
	}
	switch strings.ToLower(mechanism) {
	case "plain":
		return plain.Auth{User: user, Pass: password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: user, Pass: password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: user, Pass: password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("%s is %q, not plain, scram-sha-256 or scram-sha-512", setMechanism, mechanism)
}
