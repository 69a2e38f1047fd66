// pgx HOST PORT SECONDS CLIENTS: as context_clients.py, by pgx and its pool,
// one half by the extended protocol without named statements, which PgBouncer
// would lose, the other by the simple one.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

const look = `SELECT coalesce(plinth.current_user_id()::text, 'nobody') || ' ' || plinth.current_aal() || ' ' || current_user || ' ' ||
	(SELECT count(*) FROM marks)`

var (
	errWrong = errors.New("wrong")
	errLeave = errors.New("rolled back on purpose")
	done     int64
	pause    = 20 * time.Millisecond
)

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func expect(ctx context.Context, db querier, what, user string) error {
	var seen string
	if err := db.QueryRow(ctx, look).Scan(&seen); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	wanted := "nobody 0 authenticator 0"
	if user != "" {
		wanted = user + " 1 authenticated 1"
	}
	if seen != wanted {
		return fmt.Errorf("%w, %s: %s, expected %s", errWrong, what, seen, wanted)
	}
	return nil
}

// One transaction as the user, by a pgx.Tx that commits, or that its function rolls back.
func transaction(ctx context.Context, pool *pgxpool.Pool, token, user string) error {
	leave := rand.Intn(3) == 0
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if err := expect(ctx, tx, "at the start", ""); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "SELECT plinth.context_begin($1)", token); err != nil {
			return err
		}
		// A savepoint, in which somebody tries to be another.
		if err := pgx.BeginFunc(ctx, tx, func(inner pgx.Tx) error {
			_, err := inner.Exec(ctx, "SELECT plinth.context_begin($1)", "pls_nobody")
			return err
		}); err == nil {
			return fmt.Errorf("%w: a token that is none was taken", errWrong)
		}
		if err := expect(ctx, tx, "in the transaction", user); err != nil {
			return err
		}
		if leave {
			return errLeave
		}
		return nil
	})
	if err != nil && !errors.Is(err, errLeave) {
		return err
	}
	atomic.AddInt64(&done, 1)
	return expect(ctx, pool, "between transactions", "")
}

func client(ctx context.Context, pool *pgxpool.Pool, end time.Time, token, user string) error {
	for time.Now().Before(end) {
		if err := transaction(ctx, pool, token, user); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.Int63n(int64(2 * pause))))
	}
	return nil
}

func connect(ctx context.Context, mode pgx.QueryExecMode, clients int) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(fmt.Sprintf("host=%s port=%s user=authenticator dbname=postgres sslmode=disable pool_max_conns=%d",
		os.Args[1], os.Args[2], clients))
	if err != nil {
		return nil, err
	}
	config.ConnConfig.DefaultQueryExecMode = mode
	return pgxpool.NewWithConfig(ctx, config)
}

func run() error {
	seconds, err := strconv.ParseFloat(os.Args[3], 64)
	if err != nil {
		return err
	}
	clients, err := strconv.Atoi(os.Args[4])
	if err != nil {
		return err
	}
	ctx := context.Background()
	var pools [2]*pgxpool.Pool
	for i, mode := range []pgx.QueryExecMode{pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol} {
		if pools[i], err = connect(ctx, mode, clients); err != nil {
			return err
		}
		defer pools[i].Close()
	}

	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	failures := make(chan error, clients)
	var all sync.WaitGroup
	lines := bufio.NewScanner(os.Stdin)
	for n := 0; n < clients && lines.Scan(); n++ {
		user := strings.Fields(lines.Text())
		pool := pools[n%2]
		all.Add(1)
		go func() {
			defer all.Done()
			if err := client(ctx, pool, end, user[0], user[1]); err != nil {
				failures <- err
			}
		}()
	}
	all.Wait()
	select {
	case err := <-failures:
		return err
	default:
		return nil
	}
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(done)
}
