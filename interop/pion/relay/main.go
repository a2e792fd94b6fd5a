// Pion's TURN server on both addresses of loopback, over UDP, TCP and, with -cert and -key, TLS in TCP's place:
// relay -port PORT -realm REALM (-user NAME -password PASSWORD | -secret SECRET) [-quota N] [-deny IP].
// It says `ready`, and `created` and `deleted` for each allocation.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/pion/turn/v5"
)

// perFamily gives relayed addresses of the family that is asked for.
type perFamily struct {
	v4, v6 turn.RelayAddressGeneratorStatic
}

func (g *perFamily) Validate() error {
	if err := g.v4.Validate(); err != nil {
		return err
	}
	return g.v6.Validate()
}

func (g *perFamily) of(network string) *turn.RelayAddressGeneratorStatic {
	if strings.HasSuffix(network, "6") {
		return &g.v6
	}
	return &g.v4
}

func (g *perFamily) AllocatePacketConn(c turn.AllocateListenerConfig) (net.PacketConn, net.Addr, error) {
	return g.of(c.Network).AllocatePacketConn(c)
}

func (g *perFamily) AllocateListener(c turn.AllocateListenerConfig) (net.Listener, net.Addr, error) {
	return g.of(c.Network).AllocateListener(c)
}

func (g *perFamily) AllocateConn(c turn.AllocateConnConfig) (net.Conn, error) {
	return g.of(c.Network).AllocateConn(c)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func main() {
	port := flag.Int("port", 3478, "")
	realm := flag.String("realm", "", "")
	user := flag.String("user", "", "")
	password := flag.String("password", "", "")
	secret := flag.String("secret", "", "")
	quota := flag.Int64("quota", 0, "allocations of all users together; 0 for any number")
	deny := flag.String("deny", "", "a peer that nobody may reach")
	cert := flag.String("cert", "", "")
	key := flag.String("key", "", "")
	flag.Parse()

	var allocations atomic.Int64
	config := turn.ServerConfig{
		Realm: *realm,
		AuthHandler: func(request *turn.RequestAttributes) (string, []byte, bool) {
			return request.Username, turn.GenerateAuthKey(*user, *realm, *password), request.Username == *user
		},
		QuotaHandler: func(string, string, net.Addr) bool {
			return *quota == 0 || allocations.Load() < *quota
		},
	}
	if *secret != "" {
		config.AuthHandler = turn.LongTermTURNRESTAuthHandler(*secret, nil)
	}
	config.EventHandler.OnAllocationCreated = func(_, _ net.Addr, _, _, _ string, _ net.Addr, _ int) {
		allocations.Add(1)
		fmt.Println("created")
	}
	config.EventHandler.OnAllocationDeleted = func(_, _ net.Addr, _, _, _ string) {
		allocations.Add(-1)
		fmt.Println("deleted")
	}
	permits := func(_ net.Addr, peer net.IP) bool { return !peer.Equal(net.ParseIP(*deny)) }
	for _, host := range []string{"127.0.0.1", "::1"} {
		address := net.JoinHostPort(host, strconv.Itoa(*port))
		relays := &perFamily{
			turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP("127.0.0.1"), Address: "127.0.0.1"},
			turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP("::1"), Address: "::1"},
		}
		listener := must(net.Listen("tcp", address))
		if *cert != "" {
			pair := must(tls.LoadX509KeyPair(*cert, *key))
			listener = tls.NewListener(listener, &tls.Config{Certificates: []tls.Certificate{pair}})
		}
		config.PacketConnConfigs = append(config.PacketConnConfigs, turn.PacketConnConfig{
			PacketConn: must(net.ListenPacket("udp", address)), RelayAddressGenerator: relays, PermissionHandler: permits,
		})
		config.ListenerConfigs = append(config.ListenerConfigs, turn.ListenerConfig{
			Listener: listener, RelayAddressGenerator: relays, PermissionHandler: permits,
		})
	}
	must(turn.NewServer(config))
	fmt.Println("ready")
	select {}
}
