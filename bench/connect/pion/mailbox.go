package main

import (
	"encoding/json"
	"net"
	"sync"
)

// message is what goes through ../mailbox.py: credentials, or a candidate.
type message struct {
	Name      string `json:"name,omitempty"`
	From      string `json:"from,omitempty"`
	To        string `json:"to,omitempty"`
	Ufrag     string `json:"ufrag,omitempty"`
	Pwd       string `json:"pwd,omitempty"`
	Candidate string `json:"candidate,omitempty"`
}

type mailbox struct {
	sending sync.Mutex
	encoder *json.Encoder
	decoder *json.Decoder
}

func openMailbox(address, name string) (*mailbox, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	box := &mailbox{encoder: json.NewEncoder(conn), decoder: json.NewDecoder(conn)}
	return box, box.send(message{Name: name})
}

func (box *mailbox) send(m message) error {
	box.sending.Lock()
	defer box.sending.Unlock()
	return box.encoder.Encode(m)
}

func (box *mailbox) receive() (m message, err error) {
	err = box.decoder.Decode(&m)
	return
}
