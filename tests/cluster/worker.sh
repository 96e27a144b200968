# A node: containerd, kubelet and kube-proxy. Sourced by sandbox.
# shellcheck shell=bash disable=SC2154

# What the programs keep at fixed paths lies in the node's own folder.
mount --make-rshared /
for path in /var/lib/kubelet /var/lib/containerd /var/lib/cni /var/log/pods /var/log/containers /etc/cni/net.d; do
	mkdir -p "$path" "$state$path"
	mount --bind "$state$path" "$path"
done
# The StorageClass "shared" is one folder on all nodes.
mkdir -p /run/strop-shared "$CLUSTER/shared"
mount --bind "$CLUSTER/shared" /run/strop-shared

# The kubelet insists on these settings of the whole kernel. It gets to see
# files that hold them, and the machine keeps its own.
mkdir -p "$state/sysctl"
while read -r key value; do
	echo "$value" >"$state/sysctl/$key"
	mount --bind "$state/sysctl/$key" "/proc/sys/${key//.//}"
done <<-END
	vm.overcommit_memory 1
	vm.panic_on_oom 0
	kernel.panic 10
	kernel.panic_on_oops 1
	kernel.keys.root_maxkeys 1000000
	kernel.keys.root_maxbytes 25000000
END

# Control groups: this node's pods go below one group of its own. cgroup v2 has
# one tree, whose controllers must be handed down; v1 has one tree a controller.
cgroup=strop-$name
if cgroup_v2; then
	mkdir -p "/sys/fs/cgroup/$cgroup"
	hand_down_controllers "/sys/fs/cgroup/$cgroup"
else
	for tree in /sys/fs/cgroup/*/; do
		[ -e "$tree/cgroup.procs" ] || continue
		mkdir -p "$tree/$cgroup"
		for file in cpuset.cpus cpuset.mems; do
			if [ -e "$tree/$file" ]; then cat "$tree/$file" >"$tree/$cgroup/$file"; fi
		done
	done
fi

# Without CAP_SYS_RESOURCE no process may be given a lower OOM score than root has.
capabilities=$(awk '$1 == "CapEff:" {print $2}' /proc/self/status)
if ((0x$capabilities >> 24 & 1)); then
	restrict_oom_score=false oom_score=-999
else
	restrict_oom_score=true oom_score=0
fi

# Network: up plugs eth0 into the control plane's bridge. There is no way out to
# the machine's own network.
wait_for 60 ip link show eth0
address=$(node_ip "$number")
ip addr add "$address/24" dev eth0
ip link set eth0 up
ip route add "$SERVICE_RANGE" dev eth0
for other in "${!NODES[@]}"; do
	if [ "$other" != "$number" ]; then ip route add "$(pod_range "$other")" via "$(node_ip "$other")"; fi
done
setting net.ipv4.ip_forward 1
# Else answers from a pod of the same node would go round the Service's address.
modprobe --quiet br_netfilter 2>/dev/null || true
setting net.bridge.bridge-nf-call-iptables 1

case $name in
*gpu*) labels=strop.dev/pool=gpu,strop.dev/fake-accelerator=true taints='[{key: nvidia.com/gpu, value: present, effect: NoSchedule}]' ;;
*) labels=strop.dev/pool=cpu taints='[]' ;;
esac

cat >/etc/cni/net.d/10-pods.conflist <<END
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pod_range "$number")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
END
cat >"$state/containerd.toml" <<END
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:dev"
  restrict_oom_score_adj = $restrict_oom_score
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
END
: >"$state/resolv.conf"
cat >"$state/kubelet.yaml" <<END
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: true}
  x509: {clientCAFile: $pki/ca.crt}
authorization: {mode: Webhook}
tlsCertFile: $pki/$name.crt
tlsPrivateKeyFile: $pki/$name.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
registerWithTaints: $taints
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup
failCgroupV1: false
failSwapOn: false
oomScoreAdj: $oom_score
protectKernelDefaults: true
clusterDNS: [$DNS_IP]
clusterDomain: cluster.local
resolvConf: $state/resolv.conf
# Images come from archives only: one that is collected cannot be pulled again.
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
END
cat >"$state/kube-proxy.yaml" <<END
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $pki/kube-proxy.kubeconfig}
clusterCIDR: $POD_RANGE
hostnameOverride: $name
mode: nftables
oomScoreAdj: $oom_score
# 0: leave the kernel's connection tracking limits as they are.
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
END

supervise containerd --config "$state/containerd.toml"
wait_for 60 test -S /run/containerd/containerd.sock
wait_for 120 kubectl --kubeconfig "$pki/$name.kubeconfig" get --raw /readyz
supervise kubelet --config "$state/kubelet.yaml" --kubeconfig "$pki/$name.kubeconfig" \
	--hostname-override "$name" --node-ip "$address" --node-labels "$labels"
supervise kube-proxy --config "$state/kube-proxy.yaml"
