package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

type order struct {
	ID    int `json:"id"`
	Cents int `json:"cents"`
	// What is to go wrong with it, for the show.
	Busy    int  `json:"busy,omitempty"` // so many attempts fail
	Expired bool `json:"expired,omitempty"`
}

var (
	errBusy    = errors.New("the payment service is busy")
	errExpired = errors.New("the card has expired")
)

// pay stands for a service that takes its time, and that some orders give trouble.
func pay(ctx context.Context, o order, attempt int) error {
	select {
	case <-time.After(5*time.Millisecond + rand.N(20*time.Millisecond)):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	switch {
	case o.Expired:
		return errExpired
	case attempt <= o.Busy:
		return errBusy
	}
	return nil
}
