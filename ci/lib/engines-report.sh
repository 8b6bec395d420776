# shellcheck shell=bash disable=SC2154 # the settings are in ci/engines
#
# Part of ci/engines: runs a container under each engine and runtime, and reports.

# The image holds ldconfig: the one static program that is on every Debian system, so that no compiler is needed.
build_image() {
	mkdir -p "$scratch/root/dev" "$scratch/root/proc" "$scratch/root/sys"
	cp /sbin/ldconfig "$scratch/root/ldconfig"
	tar -C "$scratch/root" -cf "$scratch/image.tar" .
	chmod 755 "$scratch"
	chmod 644 "$scratch/image.tar"
}

# try_runtimes NAME COMMAND…: runs the image under each runtime; COMMAND is the engine with its prefix.
try_runtimes() {
	local name=$1 runtime
	shift
	if ! "$@" import "$scratch/image.tar" "$IMAGE" >"$scratch/out" 2>&1; then
		lacking "$name" "cannot import an image: $(last_words "$scratch/out")"
		return 0
	fi
	for runtime in "${runtimes[@]}"; do
		if timeout "$RUN_DEADLINE" "$@" run --rm --runtime="$runtime" --network=none "$IMAGE" /ldconfig --version \
			>"$scratch/out" 2>"$scratch/err" </dev/null; then
			ready "$name $runtime" "$(runtime_version "$runtime")"
		elif [[ $? -eq 124 ]]; then
			lacking "$name $runtime" "the container did not end within $RUN_DEADLINE s"
		else
			lacking "$name $runtime" "$(last_words "$scratch/err" 2)"
		fi
	done
	"$@" rmi "$IMAGE" >/dev/null 2>&1 || true
}

runtime_version() {
	local version
	version=$("$1" --version 2>/dev/null | head -n 1)
	echo "${version:-version unknown}"
}

report_docker() {
	local versions
	if ! have docker; then lacking docker 'no docker command'; return 0; fi
	if ! versions=$(timeout 10 docker version --format 'client {{.Client.Version}}, server {{.Server.Version}}' 2>"$scratch/err"); then
		lacking docker "no daemon answers: $(last_words "$scratch/err")"
		if [[ -s $DOCKERD_LOG ]]; then lacking docker "$DOCKERD_LOG: $(last_words "$DOCKERD_LOG")"; fi
		return 0
	fi
	# The client that comes first in PATH need not be the daemon's release.
	ready docker "$versions, $(docker info --format 'cgroup {{.CgroupVersion}} {{.CgroupDriver}}, storage {{.Driver}}')"
	try_runtimes docker docker
}

report_podman() {
	local name=$1 facts
	shift
	if ! have podman; then lacking "$name" 'no podman command'; return 0; fi
	if ! facts=$(timeout 30 "$@" info --format \
		'{{.Version.Version}}, cgroup {{.Host.CgroupsVersion}} {{.Host.CgroupManager}}, storage {{.Store.GraphDriverName}}, default runtime {{.Host.OCIRuntime.Name}}' \
		2>"$scratch/err"); then
		lacking "$name" "$(last_words "$scratch/err" 2)"
		return 0
	fi
	ready "$name" "$facts"
	try_runtimes "$name" "$@"
}

report_rootless() {
	local name="rootless($user)" limit
	if ! id "$user" >/dev/null 2>&1; then lacking "$name" "no such user; run ci/engines without --check"; return 0; fi
	if [[ $(id -u "$user") -eq 0 ]]; then lacking "$name" 'this user is root'; return 0; fi
	for limit in /proc/sys/kernel/unprivileged_userns_clone /proc/sys/user/max_user_namespaces; do
		if [[ -e $limit && $(cat "$limit") == 0 ]]; then
			lacking "$name" "$limit is 0: ordinary users get no user namespace"
			return 0
		fi
	done
	set_as_user
	report_podman "$name" "${as_user[@]}" podman
}

report() {
	local left
	left=$(leftover_controllers)
	if [[ -n $left ]]; then lacking cgroups "hybrid hierarchy, version 2 holds $left: crun refuses to start"; fi
	if { asked podman || asked rootless; } && ! mountpoint -q /dev/mqueue; then
		lacking mqueue 'nothing is mounted on /dev/mqueue: Podman refuses --ipc=host'
	fi
	if asked docker; then report_docker; fi
	if asked podman; then report_podman podman podman; fi
	if asked rootless; then report_rootless; fi
}
