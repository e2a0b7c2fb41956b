#!/bin/sh
# What debian:bookworm-slim holds, from Debian's packages: for machines that reach those and no image registry.
#   docker/base.sh ENGINE NAME        e.g. docker/base.sh podman localhost/rtcore-base; needs mmdebstrap, root or user namespaces
set -eu
engine=$1
name=$2
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
without=
for kind in doc man info locale lintian; do
  without="$without --dpkgopt=path-exclude=/usr/share/$kind/*"
done
# shellcheck disable=SC2086
mmdebstrap --quiet --variant=minbase $without --dpkgopt='path-include=/usr/share/doc/*/copyright' bookworm "$folder/base.tar"
if [ "${engine##*/}" = buildah ]; then
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$folder/base.tar" / >&2
  buildah commit --quiet --rm "$container" "$name"
else
  "$engine" import "$folder/base.tar" "$name"
fi
