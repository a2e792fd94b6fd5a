// Pion's TURN client: client -server HOST:PORT -user NAME -password WORD -peer HOST:PORT [-tcp]. It allocates, says its
// relayed address in a line of its own, sends each line that it reads to the peer, and says each answer in a line.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"log"
	"net"
	"os"

	"github.com/pion/logging"
	"github.com/pion/turn/v5"
)

func listen(server string, tcp bool) (net.PacketConn, error) {
	if !tcp {
		return net.ListenPacket("udp4", "127.0.0.1:0")
	}
	conn, err := net.Dial("tcp", server)
	if err != nil {
		return nil, err
	}
	return turn.NewSTUNConn(conn), nil
}

func run() error {
	server := flag.String("server", "", "address of the TURN server")
	user := flag.String("user", "", "user name")
	password := flag.String("password", "", "password")
	peer := flag.String("peer", "", "whom to send to")
	tcp := flag.Bool("tcp", false, "reach the server over TCP")
	flag.Parse()
	to, err := net.ResolveUDPAddr("udp4", *peer)
	if err != nil {
		return err
	}
	conn, err := listen(*server, *tcp)
	if err != nil {
		return err
	}
	client, err := turn.NewClient(&turn.ClientConfig{
		TURNServerAddr: *server,
		Conn:           conn,
		Username:       *user,
		Password:       *password,
		LoggerFactory:  logging.NewDefaultLoggerFactory(),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	if err := client.Listen(); err != nil {
		return err
	}
	relayed, err := client.Allocate()
	if err != nil {
		return err
	}
	fmt.Println(relayed.LocalAddr())
	input := bufio.NewScanner(os.Stdin)
	answer := make([]byte, 1<<16)
	for input.Scan() {
		if _, err := relayed.WriteTo(input.Bytes(), to); err != nil {
			return err
		}
		length, _, err := relayed.ReadFrom(answer)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", answer[:length])
	}
	return relayed.Close()
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
