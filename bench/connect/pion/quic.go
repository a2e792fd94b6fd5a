package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"time"

	"github.com/pion/ice/v4"
	"github.com/quic-go/quic-go"
)

const alpn = "bench-connect"

func serverConfig() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}},
		NextProtos:   []string{alpn},
	}, nil
}

// answerOver answers one request, and returns when the peer has closed the connection.
func answerOver(ctx context.Context, conn *ice.Conn, config *tls.Config) error {
	listener, err := quic.Listen(packetConn{conn}, config, nil)
	if err != nil {
		return err
	}
	defer listener.Close()
	connection, err := listener.Accept(ctx)
	if err != nil {
		return err
	}
	stream, err := connection.AcceptStream(ctx)
	if err != nil {
		return err
	}
	request := make([]byte, size)
	if _, err := io.ReadFull(stream, request); err != nil {
		return err
	}
	if _, err := stream.Write(request); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	<-connection.Context().Done()
	return nil
}

// callOver connects and sends a request; it returns when QUIC was established, and when the answer began to come.
func callOver(ctx context.Context, conn *ice.Conn) (connected, answered time.Time, err error) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	connection, err := quic.Dial(ctx, packetConn{conn}, conn.RemoteAddr(), config, nil)
	if err != nil {
		return
	}
	connected = time.Now()
	defer connection.CloseWithError(0, "")
	stream, err := connection.OpenStreamSync(ctx)
	if err != nil {
		return
	}
	if _, err = stream.Write(make([]byte, size)); err != nil {
		return
	}
	if err = stream.Close(); err != nil {
		return
	}
	_, err = stream.Read(make([]byte, size))
	answered = time.Now()
	if err == io.EOF {
		// The end may come with the bytes.
		err = nil
	}
	return
}
