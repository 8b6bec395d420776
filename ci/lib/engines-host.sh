# shellcheck shell=bash disable=SC2154 # the settings are in ci/engines
#
# Part of ci/engines: packages, control groups, message queues and the ordinary user.

## Packages

# Command that has to be there, and the package that brings it. A command that somebody installed otherwise
# (docker-ce, a newer crun in /usr/local) is left alone: packages of the same purpose conflict.
wanted_packages() {
	printf '%s\n' 'setpriv util-linux' 'mountpoint util-linux' 'mount mount' 'timeout coreutils'
	if asked docker; then printf '%s\n' 'dockerd docker.io' 'docker docker-cli' 'containerd containerd' 'jq jq'; fi
	if asked podman || asked rootless; then printf '%s\n' 'podman podman' 'conmon conmon'; fi
	if asked rootless; then
		printf '%s\n' 'useradd passwd' 'newuidmap uidmap' 'slirp4netns slirp4netns' 'fuse-overlayfs fuse-overlayfs'
	fi
	local runtime
	for runtime in "${runtimes[@]}"; do printf '%s %s\n' "$runtime" "$runtime"; done
}

install_packages() {
	local command package wanted=() found=()
	while read -r command package; do
		have "$command" || wanted+=("$package")
	done < <(wanted_packages)
	((${#wanted[@]})) || return 0

	# A package directory older than the archive names files that are gone.
	apt-get update -qq >&2 || say 'apt-get update failed, going on with the package directory that is there'
	for package in "${wanted[@]}"; do
		# Debian 12 has the docker command in docker.io, Debian 13 in docker-cli; runsc is not in every release.
		if apt-cache show --no-all-versions "$package" >/dev/null 2>&1; then
			found+=("$package")
		else
			say "the archive has no package $package"
		fi
	done
	((${#found[@]})) || return 0
	say "installing ${found[*]}"
	# Without recommendations: dbus-user-session would start a session manager that nothing here uses.
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o DPkg::Lock::Timeout=300 --no-install-recommends "${found[@]}" >&2 ||
		say 'the installation failed, the report below says what is missing'
}

## Control groups

# crun refuses a hybrid hierarchy while version 2 still holds a controller ("cgroups in hybrid mode not supported,
# drop all controllers from cgroupv2"). A version 1 hierarchy of its own takes the controller out of version 2.
leftover_controllers() {
	local unified=/sys/fs/cgroup/unified/cgroup.controllers
	if [[ -e $unified ]]; then cat "$unified"; fi
}

settle_cgroups() {
	local controller where
	for controller in $(leftover_controllers); do
		where=/sys/fs/cgroup/$controller
		say "mounting the version 1 hierarchy of $controller"
		if ! { mkdir -p "$where" && mount -t cgroup -o "$controller" cgroup "$where"; } >&2; then
			# Busy: a group below the root of version 2 uses it (cgroup.subtree_control).
			say "cannot move $controller out of cgroup version 2"
			rmdir "$where" 2>/dev/null || true
		fi
	done
}

# Podman's --ipc=host hands the machine's /dev/mqueue to the container and stops where there is none. systemd mounts it.
mount_queues() {
	if mountpoint -q /dev/mqueue; then return 0; fi
	say 'mounting /dev/mqueue'
	if ! { mkdir -p /dev/mqueue && mount -t mqueue -o nosuid,nodev,noexec mqueue /dev/mqueue; } >&2; then
		say 'cannot mount /dev/mqueue'
		return 0
	fi
	# The pause process of rootless Podman keeps the mounts it began with.
	if id "$user" >/dev/null 2>&1 && [[ -e /run/user/$(id -u "$user")/libpod/tmp/pause.pid ]]; then
		set_as_user
		if [[ -z $("${as_user[@]}" podman ps -q) ]]; then
			"${as_user[@]}" podman system migrate >&2 || true
		else
			say "$user has running containers: run podman system migrate as $user after them"
		fi
	fi
}

## The ordinary user

create_user() {
	local name start
	if ! id "$user" >/dev/null 2>&1; then
		say "creating the user $user"
		useradd --create-home --shell /bin/bash "$user"
	fi
	# useradd gives ranges to new ordinary users; older accounts and other set-ups may lack them.
	for name in uid gid; do
		grep -q "^$user:" "/etc/sub$name" 2>/dev/null && continue
		start=$(awk -F: 'BEGIN { top = 100000 } $2 + $3 > top { top = $2 + $3 } END { print top }' "/etc/sub$name" 2>/dev/null || echo 100000)
		say "giving $user the range $start+65536 in /etc/sub$name"
		usermod "--add-sub${name}s" "$start-$((start + 65535))" "$user"
	done
	# Where logind runs it makes this directory; it has to outlive sessions, or Podman loses its containers' state.
	if has_systemd; then
		loginctl enable-linger "$user" >&2 || true
	else
		install -d -m 755 /run/user
		install -d -m 700 -o "$user" -g "$(id -g "$user")" "/run/user/$(id -u "$user")"
	fi
	choose_storage
}

# Without a storage.conf some releases take vfs, which copies the whole image for each container. The driver is written
# down in a store when it is made, so an existing store keeps its own.
choose_storage() {
	set_as_user
	# shellcheck disable=SC2016 # the user's shell expands it
	"${as_user[@]}" sh -euc '
		conf=$HOME/.config/containers/storage.conf
		[ -e "$conf" ] || [ -e "$HOME/.local/share/containers/storage" ] || [ "$(stat -f -c %T "$HOME")" = overlayfs ] || {
			mkdir -p "$HOME/.config/containers"
			printf "%s\n[storage]\ndriver = \"overlay\"\n" "$1" >"$conf"
		}' sh "$MARK"
}

# The words before a command that run it as that user, with nothing of this environment.
set_as_user() {
	local uid gid home
	uid=$(id -u "$user") gid=$(id -g "$user") home=$(getent passwd "$user" | cut -d: -f6)
	as_user=(env -C / setpriv "--reuid=$uid" "--regid=$gid" --init-groups --inh-caps=-all
		env -i "HOME=$home" "USER=$user" "PATH=$PATH" "XDG_RUNTIME_DIR=/run/user/$uid")
}
