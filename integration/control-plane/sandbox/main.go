// Command sandbox makes and ends the networks of pods as a container runtime does, by the CNI library of containerd and
// CRI-O and by real plugins, for tests.
//
// It reads a request a line, {"op": "add", "id": ..., "netns": ..., "namespace": ..., "pod": ..., "uid": ...}, and works on
// as many at once as there are. It answers each with a line when it is done: {"id": ..., "addresses": [...]}, or with an
// "error". The library keeps its result files below --cache. It ends when its standard input does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/containernetworking/cni/libcni"
	current "github.com/containernetworking/cni/pkg/types/100"
)

// request is what a line asks for.
type request struct {
	// Op is "add" or "del".
	Op string `json:"op"`
	// ID is the container's.
	ID string `json:"id"`
	// Netns is the path of the network namespace.
	Netns string `json:"netns"`
	// Namespace, Pod and UID are the pod's. A container without them is no pod's.
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
}

// answer is what became of a request.
type answer struct {
	ID        string   `json:"id"`
	Addresses []string `json:"addresses"`
	Error     string   `json:"error,omitempty"`
}

func main() {
	config := flag.String("config", "", "file with the network's list of plugins")
	plugins := flag.String("plugins", "", "folder, or several as in PATH, with the plugins")
	cache := flag.String("cache", "", "folder of the library; the files are in its folder results")
	flag.Parse()
	if err := run(*config, *plugins, *cache); err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

// run serves requests until there are no more, and waits for those under way.
func run(config, plugins, cache string) error {
	list, err := libcni.ConfListFromFile(config)
	if err != nil {
		return err
	}
	library := libcni.NewCNIConfigWithCacheDir(filepath.SplitList(plugins), cache, nil)
	var underWay sync.WaitGroup
	defer underWay.Wait()
	var mutex sync.Mutex
	answers := json.NewEncoder(os.Stdout)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var asked request
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			return fmt.Errorf("request %q: %w", lines.Text(), err)
		}
		underWay.Go(func() {
			answered := answer{ID: asked.ID}
			if addresses, err := serve(library, list, asked); err != nil {
				answered.Error = err.Error()
			} else {
				answered.Addresses = addresses
			}
			mutex.Lock()
			defer mutex.Unlock()
			// Whoever asked may be gone, and then nobody is to be told.
			_ = answers.Encode(answered)
		})
	}
	return lines.Err()
}

// serve does what containerd does, with the arguments that it gives.
func serve(library *libcni.CNIConfig, list *libcni.NetworkConfigList, asked request) ([]string, error) {
	runtime := &libcni.RuntimeConf{ContainerID: asked.ID, NetNS: asked.Netns, IfName: "eth0"}
	if asked.Pod != "" {
		runtime.Args = [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", asked.Namespace},
			{"K8S_POD_NAME", asked.Pod},
			{"K8S_POD_INFRA_CONTAINER_ID", asked.ID},
			{"K8S_POD_UID", asked.UID},
		}
	}
	switch asked.Op {
	case "add":
		made, err := library.AddNetworkList(context.Background(), list, runtime)
		if err != nil {
			return nil, err
		}
		result, err := current.NewResultFromResult(made)
		if err != nil {
			return nil, err
		}
		var addresses []string
		for _, ip := range result.IPs {
			addresses = append(addresses, ip.Address.IP.String())
		}
		return addresses, nil
	case "del":
		return nil, library.DelNetworkList(context.Background(), list, runtime)
	default:
		return nil, fmt.Errorf("%q is neither add nor del", asked.Op)
	}
}
