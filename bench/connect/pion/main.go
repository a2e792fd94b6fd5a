// Pion's ICE, and quic-go over the pair that it finds: peer [-eager] answer|warm|cold GROUND, as ../lines.py has it.
//
// Candidates are trickled. An agent is one session's, so whoever answers keeps one at hand that has gathered, and so
// does who connects in "warm". The certificate is not verified.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/pion/ice/v4"
	"github.com/pion/stun/v4"
)

// The bytes of the request, and of the answer.
const size = 100

const (
	settle   = 500 * time.Millisecond
	patience = 20 * time.Second
	name     = "pion"
)

type relay struct {
	Address  string `json:"address"`
	Username string `json:"username"`
	Password string `json:"password"`
}

type ground struct {
	Mailbox string `json:"mailbox"`
	Stun    string `json:"stun"`
	Turn    *relay `json:"turn"`
	To      string `json:"to"`
}

func say(values map[string]any) {
	encoded, err := json.Marshal(values)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", encoded)
}

func toldToGo() error {
	say(map[string]any{"ready": true})
	_, err := bufio.NewReader(os.Stdin).ReadString('\n')
	return err
}

// session is an agent, and what its candidates go through once there is somebody to tell them.
type session struct {
	agent      *ice.Agent
	candidates chan ice.Candidate
}

// newSession makes an agent. By default, pion waits for better candidates before it takes one: half a second for a
// server-reflexive, two for a relayed one; and it checks five times a second. An eager one does not wait.
func newSession(g ground, eager bool) (*session, error) {
	servers := []*stun.URI{}
	uri, err := stun.ParseURI("stun:" + g.Stun)
	if err != nil {
		return nil, err
	}
	servers = append(servers, uri)
	if g.Turn != nil {
		uri, err = stun.ParseURI("turn:" + g.Turn.Address + "?transport=udp")
		if err != nil {
			return nil, err
		}
		uri.Username, uri.Password = g.Turn.Username, g.Turn.Password
		servers = append(servers, uri)
	}
	options := []ice.AgentOption{
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithMulticastDNSMode(ice.MulticastDNSModeDisabled),
		ice.WithUrls(servers),
	}
	if eager {
		options = append(options,
			ice.WithSrflxAcceptanceMinWait(0),
			ice.WithPrflxAcceptanceMinWait(0),
			ice.WithRelayAcceptanceMinWait(0),
			ice.WithCheckInterval(20*time.Millisecond),
		)
	}
	agent, err := ice.NewAgentWithOptions(options...)
	if err != nil {
		return nil, err
	}
	s := &session{agent: agent, candidates: make(chan ice.Candidate, 64)}
	err = agent.OnCandidate(func(candidate ice.Candidate) {
		if candidate != nil {
			s.candidates <- candidate
		}
	})
	if err != nil {
		return nil, err
	}
	return s, agent.GatherCandidates()
}

// describe sends the agent's credentials, and its candidates as they are found.
func (s *session) describe(box *mailbox, to string) error {
	ufrag, pwd, err := s.agent.GetLocalUserCredentials()
	if err != nil {
		return err
	}
	if err := box.send(message{To: to, Ufrag: ufrag, Pwd: pwd}); err != nil {
		return err
	}
	go func() {
		for candidate := range s.candidates {
			if box.send(message{To: to, Candidate: candidate.Marshal()}) != nil {
				return
			}
		}
	}()
	return nil
}

func (s *session) add(marshalled string) error {
	candidate, err := ice.UnmarshalCandidate(marshalled)
	if err != nil {
		return err
	}
	return s.agent.AddRemoteCandidate(candidate)
}

func answer(g ground, eager bool) error {
	config, err := serverConfig()
	if err != nil {
		return err
	}
	box, err := openMailbox(g.Mailbox, name)
	if err != nil {
		return err
	}
	spares := make(chan *session)
	go func() {
		for {
			s, err := newSession(g, eager)
			if err != nil {
				log.Fatal(err)
			}
			spares <- s
			// The next comes when this one's connection is over.
			time.Sleep(settle)
		}
	}()
	time.Sleep(settle)
	say(map[string]any{"peer": name})
	sessions := map[string]*session{}
	for {
		received, err := box.receive()
		if err != nil {
			return err
		}
		if received.Candidate != "" {
			if s := sessions[received.From]; s != nil {
				if err := s.add(received.Candidate); err != nil {
					return err
				}
			}
			continue
		}
		s := <-spares
		sessions[received.From] = s
		if err := s.describe(box, received.From); err != nil {
			return err
		}
		go func() {
			defer s.agent.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			conn, err := s.agent.Accept(ctx, received.Ufrag, received.Pwd)
			if err == nil {
				err = answerOver(ctx, conn, config)
			}
			if err != nil {
				log.Print(err)
			}
		}()
	}
}

func call(g ground, eager, cold bool) error {
	var started time.Time
	begin := func() error {
		err := toldToGo()
		started = time.Now()
		return err
	}
	if cold {
		if err := begin(); err != nil {
			return err
		}
	}
	s, err := newSession(g, eager)
	if err != nil {
		return err
	}
	defer s.agent.Close()
	box, err := openMailbox(g.Mailbox, uuid.NewString())
	if err != nil {
		return err
	}
	if !cold {
		time.Sleep(settle)
		if err := begin(); err != nil {
			return err
		}
	}
	if err := s.describe(box, g.To); err != nil {
		return err
	}
	described, err := box.receive()
	if err != nil {
		return err
	}
	go func() {
		for {
			received, err := box.receive()
			if err != nil || s.add(received.Candidate) != nil {
				return
			}
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := s.agent.Dial(ctx, described.Ufrag, described.Pwd)
	if err != nil {
		return err
	}
	connected, answered, err := callOver(ctx, conn)
	if err != nil {
		return err
	}
	pair, err := s.agent.GetSelectedCandidatePair()
	if err != nil {
		return err
	}
	result := map[string]any{
		"connected": connected.Sub(started).Seconds(),
		"answered":  answered.Sub(started).Seconds(),
		"direct":    nil,
	}
	if pair.Local.Type() != ice.CandidateTypeRelay && pair.Remote.Type() != ice.CandidateTypeRelay {
		result["direct"] = result["connected"]
	}
	say(result)
	return nil
}

// packetConn is a connected pair as quic-go wants it: with the one address that there is.
type packetConn struct {
	*ice.Conn
}

func (c packetConn) ReadFrom(buffer []byte) (int, net.Addr, error) {
	length, err := c.Read(buffer)
	return length, c.RemoteAddr(), err
}

func (c packetConn) WriteTo(data []byte, _ net.Addr) (int, error) {
	return c.Write(data)
}

func main() {
	eager := flag.Bool("eager", false, "take the first pair that works, and check fifty times a second")
	flag.Parse()
	var g ground
	err := errors.New("peer [-eager] answer|warm|cold GROUND")
	if flag.NArg() == 2 {
		err = json.Unmarshal([]byte(flag.Arg(1)), &g)
	}
	if err != nil {
		log.Fatal(err)
	}
	if mode := flag.Arg(0); mode == "answer" {
		log.Fatal(answer(g, *eager))
	} else if err := call(g, *eager, mode == "cold"); err != nil {
		say(map[string]any{"failed": err.Error()})
	}
}
