// Pion's ICE agent behind the lines of interop/lines.py: peer -role controlling [-stun HOST:PORT] [-lite] [-silence 5s].
// It also says `disconnected`, when nothing has come from the other side for as long as -silence says.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
)

// line is any message of the protocol; its type says which fields matter.
type line struct {
	Type      string `json:"type"`
	Ufrag     string `json:"ufrag,omitempty"`
	Pwd       string `json:"pwd,omitempty"`
	Lite      bool   `json:"lite,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	Local     string `json:"local,omitempty"`
	Remote    string `json:"remote,omitempty"`
	Reason    string `json:"reason,omitempty"`
	Data      string `json:"data,omitempty"`
}

var output sync.Mutex

func say(message line) {
	encoded, err := json.Marshal(message)
	if err != nil {
		log.Fatal(err)
	}
	output.Lock()
	defer output.Unlock()
	fmt.Printf("%s\n", encoded)
}

// peer is an agent, and the connection that it makes.
type peer struct {
	agent       *ice.Agent
	controlling bool
	lite        bool
	started     bool // Whether it knows the other agent's credentials.
	restarting  bool // Whether it has told new ones of its own, and waits for the other's.
	conn        *ice.Conn
	connected   chan struct{}
}

func newPeer(controlling, lite bool, server string, silence time.Duration) (*peer, error) {
	options := []ice.AgentOption{
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4, ice.NetworkTypeUDP6}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithICELite(lite),
	}
	if silence != 0 {
		options = append(options, ice.WithDisconnectedTimeout(silence))
	}
	if lite {
		// RFC 8445 §5.2: a lite agent has host candidates alone.
		options = append(options, ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost}))
	} else if server != "" {
		uri, err := stun.ParseURI("stun:" + server)
		if err != nil {
			return nil, err
		}
		options = append(options, ice.WithUrls([]*stun.URI{uri}))
	}
	agent, err := ice.NewAgentWithOptions(options...)
	if err != nil {
		return nil, err
	}
	p := &peer{agent: agent, controlling: controlling, lite: lite, connected: make(chan struct{})}
	return p, p.listen()
}

// listen has the agent tell what happens.
func (p *peer) listen() error {
	err := p.agent.OnCandidate(func(candidate ice.Candidate) {
		if candidate == nil {
			say(line{Type: "end-of-candidates"})
		} else {
			say(line{Type: "candidate", Candidate: "candidate:" + candidate.Marshal()})
		}
	})
	if err != nil {
		return err
	}
	err = p.agent.OnSelectedCandidatePairChange(func(local, remote ice.Candidate) {
		say(line{Type: "selected", Local: text(local), Remote: text(remote)})
	})
	if err != nil {
		return err
	}
	return p.agent.OnConnectionStateChange(func(state ice.ConnectionState) {
		if state == ice.ConnectionStateDisconnected {
			say(line{Type: "disconnected"})
		}
	})
}

// take does what a line asks for.
func (p *peer) take(message line) error {
	switch message.Type {
	case "start":
		return p.gather()
	case "restart":
		return p.restart()
	case "credentials":
		return p.learn(message)
	case "candidate":
		candidate, err := ice.UnmarshalCandidate(message.Candidate)
		if err != nil {
			return err
		}
		return p.agent.AddRemoteCandidate(candidate)
	case "send":
		<-p.connected
		_, err := p.conn.Write([]byte(message.Data))
		return err
	}
	return nil
}

// gather tells the agent's credentials, and has it look for candidates.
func (p *peer) gather() error {
	ufrag, pwd, err := p.agent.GetLocalUserCredentials()
	if err != nil {
		return err
	}
	say(line{Type: "credentials", Ufrag: ufrag, Pwd: pwd, Lite: p.lite})
	return p.agent.GatherCandidates()
}

func (p *peer) restart() error {
	p.restarting = true
	if err := p.agent.Restart("", ""); err != nil {
		return err
	}
	return p.gather()
}

// learn takes the other agent's credentials. After the first ones, they begin a restart, or answer ours.
func (p *peer) learn(message line) error {
	if !p.started {
		p.started = true
		if err := p.agent.SetRemoteICELite(message.Lite); err != nil {
			return err
		}
		go p.connect(message.Ufrag, message.Pwd)
		return nil
	}
	if !p.restarting {
		if err := p.restart(); err != nil {
			return err
		}
	}
	p.restarting = false
	return p.agent.SetRemoteCredentials(message.Ufrag, message.Pwd)
}

func (p *peer) connect(ufrag, pwd string) {
	begin := p.agent.Accept
	if p.controlling {
		begin = p.agent.Dial
	}
	conn, err := begin(context.Background(), ufrag, pwd)
	if err != nil {
		say(line{Type: "failed", Reason: err.Error()})
		return
	}
	p.conn = conn
	close(p.connected)
	buffer := make([]byte, 2048)
	for {
		length, err := conn.Read(buffer)
		if err != nil {
			return
		}
		say(line{Type: "received", Data: string(buffer[:length])})
	}
}

func text(candidate ice.Candidate) string {
	return candidate.Type().String() + " " + net.JoinHostPort(candidate.Address(), strconv.Itoa(candidate.Port()))
}

func run(p *peer) error {
	say(line{Type: "ready"})
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var message line
		if err := json.Unmarshal(lines.Bytes(), &message); err != nil {
			return err
		}
		if message.Type == "close" {
			break
		}
		if err := p.take(message); err != nil {
			return err
		}
	}
	return p.agent.Close()
}

func main() {
	role := flag.String("role", "", "controlling or controlled")
	server := flag.String("stun", "", "a STUN server, HOST:PORT")
	lite := flag.Bool("lite", false, "be a lite agent")
	silence := flag.Duration("silence", 0, "after how long without a packet it says that it is disconnected")
	flag.Parse()
	p, err := newPeer(*role == "controlling", *lite, *server, *silence)
	if err == nil {
		err = run(p)
	}
	if err != nil {
		log.Fatal(err)
	}
}
