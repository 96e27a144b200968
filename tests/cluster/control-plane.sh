# etcd, the API server, its controllers and the scheduler, and the bridge that
# joins the nodes. Sourced by sandbox.
# shellcheck shell=bash disable=SC2154

ip link add eth0 type bridge
ip addr add "$CONTROL_PLANE_IP/24" dev eth0
ip link set eth0 up
for number in "${!NODES[@]}"; do ip route add "$(pod_range "$number")" via "$(node_ip "$number")"; done

etcd_url=http://127.0.0.1:2379
peer_url=http://127.0.0.1:2380
supervise etcd --data-dir "$state/etcd" --unsafe-no-fsync --log-level warn \
	--listen-client-urls "$etcd_url" --advertise-client-urls "$etcd_url" \
	--listen-peer-urls "$peer_url" --initial-advertise-peer-urls "$peer_url" --initial-cluster "default=$peer_url"
# Pods see one another's nodes by address only: there is no DNS for node names.
supervise kube-apiserver --etcd-servers "$etcd_url" --advertise-address "$CONTROL_PLANE_IP" \
	--service-cluster-ip-range "$SERVICE_RANGE" --allow-privileged \
	--authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
	--client-ca-file "$pki/ca.crt" --tls-cert-file "$pki/apiserver.crt" --tls-private-key-file "$pki/apiserver.key" \
	--kubelet-certificate-authority "$pki/ca.crt" --kubelet-preferred-address-types InternalIP \
	--kubelet-client-certificate "$pki/kubelet-client.crt" --kubelet-client-key "$pki/kubelet-client.key" \
	--service-account-issuer https://kubernetes.default.svc.cluster.local \
	--service-account-key-file "$pki/service-account.pub" --service-account-signing-key-file "$pki/service-account.key"
wait_for 120 kubectl --kubeconfig "$pki/kube-scheduler.kubeconfig" get --raw /readyz
supervise kube-controller-manager --kubeconfig "$pki/kube-controller-manager.kubeconfig" --leader-elect=false \
	--use-service-account-credentials --root-ca-file "$pki/ca.crt" \
	--service-account-private-key-file "$pki/service-account.key" \
	--cluster-signing-cert-file "$pki/ca.crt" --cluster-signing-key-file "$pki/ca.key"
supervise kube-scheduler --kubeconfig "$pki/kube-scheduler.kubeconfig" --leader-elect=false
