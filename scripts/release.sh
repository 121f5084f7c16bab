#!/usr/bin/env bash
# Makes a release: version and changelog, a commit and a tag, wheel and source distribution, checked. Publishes nothing.
#
#   scripts/release.sh 0.2.0
set -euo pipefail
cd "$(dirname "$0")/.."
version=${1:?pass the version, such as 0.2.0}
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || { echo "$version is no version such as 0.2.0" >&2; exit 1; }
[ -z "$(git status --porcelain)" ] || { echo "there are changes that are not committed: commit them first" >&2; exit 1; }
grep -q '^## \[Unreleased\]$' CHANGELOG.md || { echo "CHANGELOG.md has no section [Unreleased]" >&2; exit 1; }
! git rev-parse --quiet --verify "v$version" >/dev/null || { echo "the tag v$version exists" >&2; exit 1; }

make lint typecheck docs test
sed -i "s/^__version__ = .*/__version__ = \"$version\"/" mlfix_train/__init__.py
sed -i "s/^version: .*/version: $version/" CITATION.cff
sed -i "s/^## \[Unreleased\]$/## [Unreleased]\n\n## [$version] - $(date +%F)/" CHANGELOG.md
git commit --quiet -am "Version $version"
git tag -a "v$version" -m "Version $version"

rm -rf dist
.venv/bin/python -m build
.venv/bin/python -m pip install --quiet twine
.venv/bin/python -m twine check --strict dist/*
try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
python3 -m venv "$try/venv"
"$try/venv/bin/pip" install --quiet --constraint constraints.txt dist/*.whl
[ "$("$try/venv/bin/mlfix" --version)" = "$version" ] || { echo "the wheel has another version" >&2; exit 1; }

echo "made dist/ and the tag v$version. Publish them by:"
echo "  git push origin main v$version"
echo "  .venv/bin/python -m twine upload dist/*"
