package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/agent"
)

func statusCommand() *cobra.Command {
	var url, tokenFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the workers and rooms of a running agent",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			token, err := readToken(tokenFile)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
			defer cancel()
			body, err := fetch(ctx, url+"/api/v1/workers", token)
			if err != nil {
				return err
			}
			if asJSON {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			return printStatus(cmd.OutOrStdout(), body)
		},
	}
	cmd.Flags().StringVar(&url, "url", "http://127.0.0.1:8080", "where the agent serves")
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "file with the bearer token")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the API's answer")
	return cmd
}

// fetch is one bounded GET that turns every failure into words.
func fetch(ctx context.Context, url, token string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w (is the agent running? 'sfu-agent run')", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", url, err)
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return nil, fmt.Errorf("%s: the agent wants its token: give --token-file", url)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %s", url, resp.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

func printStatus(w io.Writer, body []byte) error {
	var workers []agent.Worker
	if err := json.Unmarshal(body, &workers); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "WORKER\tSTATE\tSINCE\tPID\tWHERE\tUDP\tRUNG\tROOMS\tVIEWERS\tRESTARTS\tLAST EXIT")
	for _, k := range workers {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t", k.ID, k.State, time.Since(k.Since).Round(time.Second), orDash(k.PID), where(k))
		rooms, viewers, udp, rung := 0, 0, "-", "-"
		if k.Status != nil {
			udp, rung = k.Status.UDP.Address, k.Status.UDP.Rung
			rooms = len(k.Status.Rooms)
			for _, r := range k.Status.Rooms {
				viewers += r.Viewers
			}
		}
		last := "-"
		if k.LastExit != nil {
			last = k.LastExit.Text
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%s\n", udp, rung, rooms, viewers, k.Restarts, last)
	}
	return table.Flush()
}

func where(k agent.Worker) string {
	switch {
	case k.Unit != "":
		return k.Unit
	case k.Cgroup != "":
		return k.Cgroup
	}
	return k.Placer
}

func orDash(pid int) string {
	if pid == 0 {
		return "-"
	}
	return fmt.Sprint(pid)
}
