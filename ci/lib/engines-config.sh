# shellcheck shell=bash disable=SC2154 # the settings are in ci/engines
#
# Part of ci/engines: the engines' configuration, and Docker's daemon.

# runsc: its KVM platform hangs where /dev/kvm exists and does not work, its own network stack needs a network
# namespace that is set up. Shared memory needs neither.
readonly RUNSC_FLAGS=(--platform=ptrace --network=none)

# Podman asks for nofile 1048576 and nproc 4194304 as root. It lowers its own nproc limit to 32768 first, so without
# CAP_SYS_RESOURCE it cannot hand on more than that.
readonly PODMAN_NOFILE=1048576
readonly PODMAN_NPROC=32768

## Podman's configuration

hard_limit() {
	local limit
	limit=$(ulimit -H "-$1")
	if [[ $limit == unlimited ]]; then limit=$2; fi
	echo $((limit < $2 ? limit : $2))
}

# CAP_SYS_RESOURCE is bit 24.
can_raise_limits() {
	local effective
	effective=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
	(((16#$effective >> 24) & 1))
}

podman_config() {
	printf '%s\n# Changes are overwritten; remove this line to keep them. docs/engines.md has the reasons.\n' "$MARK"
	if ! can_raise_limits; then
		printf '\n[containers]\ndefault_ulimits = ["nofile=%d:%d", "nproc=%d:%d"]\n' \
			"$(hard_limit n $PODMAN_NOFILE)" "$(hard_limit n $PODMAN_NOFILE)" \
			"$(hard_limit u $PODMAN_NPROC)" "$(hard_limit u $PODMAN_NPROC)"
	fi
	if ! has_systemd; then
		printf '\n[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
	fi
	printf '\n[engine.runtimes]\nrunsc = ["%s"]\n' "$RUNSC_WRAPPER"
}

# Podman has no setting for a runtime's flags, only --runtime-flag of each command. Where root of the container is not
# root of the machine, runsc may not write control groups and stops unless it is told not to try.
runsc_wrapper() {
	cat <<-END
		#!/bin/sh
		$MARK
		read -r _ outside _ </proc/self/uid_map
		[ "\$outside" = 0 ] || set -- --ignore-cgroups "\$@"
		exec $(command -v runsc || echo runsc) ${RUNSC_FLAGS[*]} "\$@"
	END
}

# write_own FILE MODE: stdin becomes the file, unless somebody else's file is there.
write_own() {
	local file=$1 mode=$2 text
	text=$(cat)
	if [[ -e $file ]]; then
		if ! grep -qF "$MARK" "$file"; then
			say "$file is not this script's, left as it is"
			return 0
		fi
		if [[ $text == "$(cat "$file")" ]]; then return 0; fi
	fi
	mkdir -p "$(dirname "$file")"
	printf '%s\n' "$text" >"$file.new"
	chmod "$mode" "$file.new"
	mv "$file.new" "$file"
	say "wrote $file"
}

configure_podman() {
	runsc_wrapper | write_own "$RUNSC_WRAPPER" 755
	podman_config | write_own "$PODMAN_CONFIG" 644
}

## Docker's configuration and daemon

docker_config() {
	local runtime path entries=()
	for runtime in "${runtimes[@]}"; do
		# runc is built in and may not be redefined.
		if [[ $runtime == runc ]] || ! path=$(command -v "$runtime"); then continue; fi
		if [[ $runtime == runsc ]]; then
			entries+=("$(jq -n --arg path "$path" '{runsc: {path: $path, runtimeArgs: $ARGS.positional}}' \
				--args -- "${RUNSC_FLAGS[@]}")")
		else
			entries+=("$(jq -n --arg name "$runtime" --arg path "$path" '{($name): {path: $path}}')")
		fi
	done
	jq -s '{runtimes: add}' <<<"${entries[*]}"
}

# The file is JSON and has no place for a mark, so its content decides. Returns 0 when it was changed.
configure_docker() {
	local ours merged
	ours=$(docker_config)
	mkdir -p "$(dirname "$DOCKER_CONFIG")"
	if [[ ! -s $DOCKER_CONFIG ]]; then
		merged=$ours
	else
		if ! merged=$(jq -s '.[0] * .[1]' "$DOCKER_CONFIG" - <<<"$ours"); then
			say "$DOCKER_CONFIG is not JSON, left as it is"
			return 1
		fi
		if [[ $(jq -S . <<<"$merged") == "$(jq -S . "$DOCKER_CONFIG")" ]]; then return 1; fi
		if ! $merge_config; then
			say "$DOCKER_CONFIG exists and lacks these settings; add them, or let --merge-config do it:"
			printf '%s\n' "$ours" >&2
			return 1
		fi
		cp -p "$DOCKER_CONFIG" "$DOCKER_CONFIG.before-shmcheck"
	fi
	printf '%s\n' "$merged" >"$DOCKER_CONFIG.new"
	mv "$DOCKER_CONFIG.new" "$DOCKER_CONFIG"
	say "wrote $DOCKER_CONFIG"
}

docker_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

dockerd_pid() {
	local pid
	pid=$(cat /var/run/docker.pid 2>/dev/null) || return 1
	[[ $(cat "/proc/$pid/comm" 2>/dev/null) == dockerd ]] && echo "$pid"
}

start_docker() {
	local changed=false pid deadline
	if configure_docker; then changed=true; fi
	if docker_answers; then
		# Runtimes are among the settings that a running daemon takes over; its containers go on.
		if $changed && pid=$(dockerd_pid); then
			say "dockerd ($pid) reloads its configuration"
			kill -HUP "$pid"
			for ((deadline = SECONDS + 10; SECONDS < deadline; )); do
				[[ -z $(absent_runtimes) ]] && break
				sleep 0.2
			done
		fi
		return 0
	fi
	if has_systemd; then
		say 'starting docker.service'
		systemctl enable --now docker.service >&2 || true
	else
		say "starting dockerd, log in $DOCKERD_LOG"
		setsid dockerd >>"$DOCKERD_LOG" 2>&1 </dev/null &
		pid=$!
	fi
	for ((deadline = SECONDS + DOCKERD_DEADLINE; SECONDS < deadline; )); do
		docker_answers && return 0
		if ! has_systemd && ! kill -0 "$pid" 2>/dev/null; then break; fi
		sleep 0.2
	done
	say 'dockerd does not answer'
}

absent_runtimes() {
	local runtime known
	# shellcheck disable=SC2016 # $name is the template's variable
	known=$(timeout 10 docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>/dev/null) || return 0
	for runtime in "${runtimes[@]}"; do
		[[ " $known " == *" $runtime "* ]] || printf '%s ' "$runtime"
	done
}
