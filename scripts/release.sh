#!/usr/bin/env bash
# Makes a release: checks, sets version and changelog, builds and tries wheel and source distribution, then commits and
# tags. Publishes nothing. Whatever fails leaves the tree as it was.
#
#   scripts/release.sh 0.2.0
#   scripts/release.sh --dry-run 0.2.0          everything but the commit and the tag
#   PYTHON=python CHECKS="lint test"            the environment's python (.venv/bin/python), the goals of make
set -euo pipefail
cd "$(dirname "$0")/.."
fail() { echo "$1" >&2; exit 1; }

dry_run=
[ "${1:-}" != --dry-run ] || { dry_run=yes; shift; }
version=${1:-} python=${PYTHON:-.venv/bin/python} checks=${CHECKS-lint typecheck docs test}
files="mlfix_train/__init__.py CITATION.cff CHANGELOG.md"
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "'$version' is no version: pass one such as 0.2.0"
[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed: commit them first"
! git rev-parse --quiet --verify "v$version" >/dev/null || fail "the tag v$version exists: choose another version"
awk '/^## \[Unreleased\]$/ {in_it = 1; next} /^## / {in_it = 0} in_it && NF {found = 1} END {exit !found}' CHANGELOG.md ||
  fail "CHANGELOG.md has nothing under [Unreleased]: say there what is new"
python=$(command -v "$python") || fail "there is no $python: run make, or set PYTHON"
[[ $python = /* ]] || python=$PWD/$python
for module in build twine; do
  "$python" -c "import $module" 2>/dev/null || fail "$python has no $module: $python -m pip install $module"
done

[ -z "$checks" ] || make $checks
try=$(mktemp -d)
trap 'git checkout --quiet -- $files; rm -rf "$try"' EXIT
sed -i.old "s/^__version__ = .*/__version__ = \"$version\"/" mlfix_train/__init__.py
sed -i.old "s/^version: .*/version: $version/" CITATION.cff
awk -v line="## [$version] - $(date +%F)" '{print} /^## \[Unreleased\]$/ {print "\n" line}' CHANGELOG.md >"$try/changelog"
cp "$try/changelog" CHANGELOG.md
rm mlfix_train/__init__.py.old CITATION.cff.old

rm -rf dist
"$python" -m build --no-isolation
"$python" -m twine check --strict dist/*
"$python" -m pip install --quiet --no-deps --target "$try/wheel" dist/*.whl
found=$(cd "$try/wheel" && "$python" -m mlfix_train.cli.main --version)
[ "$found" = "$version" ] || fail "the wheel says that it is version $found"
[ -z "$dry_run" ] || { echo "a dry run: dist/ is made, nothing is committed or tagged"; exit 0; }

git commit --quiet -m "Version $version" -- $files
git tag -a "v$version" -m "Version $version"
echo "made dist/ and the tag v$version. Publish them by:"
echo "  git push origin HEAD v$version"
echo "  $python -m twine upload dist/*"
