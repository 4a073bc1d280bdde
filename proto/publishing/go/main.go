// Publishes an event to Fanfare with amqp091-go, and waits for the confirm.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	tryTimeout = 10 * time.Second
	maxBackoff = 10 * time.Second
)

// Connects, publishes and waits for the confirm. A service keeps connection and channel for further events.
func publishOnce(broker, exchange, routingKey, id string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	connection, err := amqp.DialConfig(broker, amqp.Config{Dial: amqp.DefaultDial(tryTimeout)})
	if err != nil {
		return err
	}
	defer func() { connection.CloseDeadline(time.Now().Add(time.Second)) }()
	channel, err := connection.Channel()
	if err != nil {
		return err
	}
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	if err := channel.Confirm(false); err != nil {
		return err
	}
	confirm, err := channel.PublishWithDeferredConfirmWithContext(ctx, exchange, routingKey, false, false, amqp.Publishing{
		MessageId:    id,
		DeliveryMode: amqp.Persistent,
		ContentType:  "application/json",
		Body:         body,
	})
	if err != nil {
		return err
	}
	select {
	case <-confirm.Done():
		if confirm.Acked() {
			return nil
		}
	case <-ctx.Done():
		return fmt.Errorf("no confirm within %v", tryTimeout)
	}
	// A lost connection or a closed channel also ends the wait, without an ack.
	select {
	case reason := <-closed:
		if reason != nil {
			return reason
		}
	case <-time.After(100 * time.Millisecond):
	}
	return errors.New("the broker refused the message")
}

func main() {
	broker, exchange, application := os.Getenv("BROKER"), os.Getenv("EXCHANGE"), os.Getenv("APPLICATION")
	seconds, err := strconv.Atoi(os.Getenv("GIVE_UP_AFTER"))
	if os.Getenv("GIVE_UP_AFTER") == "" {
		seconds, err = 60, nil
	}
	if err != nil || len(os.Args) != 4 || broker == "" || exchange == "" || application == "" {
		fmt.Fprintln(os.Stderr, "usage: publish <type> <id> <data as JSON>, with BROKER, EXCHANGE and APPLICATION set")
		os.Exit(2)
	}
	routingKey, id := application+"."+os.Args[1], os.Args[2]
	body, err := json.Marshal(map[string]any{"data": json.RawMessage(os.Args[3])})
	if err != nil {
		fmt.Fprintln(os.Stderr, "the data are not JSON:", err)
		os.Exit(2)
	}

	deadline := time.Now().Add(time.Duration(seconds) * time.Second)
	for backoff := 500 * time.Millisecond; ; backoff = min(2*backoff, maxBackoff) {
		err := publishOnce(broker, exchange, routingKey, id, body)
		if err == nil {
			break
		}
		if time.Now().Add(backoff).After(deadline) {
			fmt.Fprintf(os.Stderr, "%s is not confirmed: %v. Publish again later, under the same id.\n", id, err)
			os.Exit(1)
		}
		// The same id again: Fanfare recognises an event that did arrive.
		fmt.Fprintf(os.Stderr, "%v; next try in %v\n", err, backoff)
		time.Sleep(backoff)
	}
	fmt.Println("confirmed", id)
}
