#!/bin/sh
# test-wheel.sh PYTHON SHARES: build the source archive and from it the wheel, both into dist/, and run the tests
# against the wheel in SHARES processes.
#
# The tests run outside the checkout, where `import echod` can find nothing but the wheel in its own environment.
set -eu

cd "$(dirname "$0")/../.."
root=$(pwd)
python=$root/$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

echo "echod: building the source archive and the wheel"
rm -f dist/echod-*.tar.gz dist/echod-*.whl
"$python" -m hatchling build --target sdist --directory dist
"$python" -m pip --quiet --disable-pip-version-check --no-input wheel --no-deps --no-index --no-build-isolation \
    --use-pep517 --wheel-dir dist dist/echod-*.tar.gz
wheel=$(echo dist/echod-*.whl)

echo "echod: testing $wheel"
ECHOD=$root/$wheel sh packaging/requirements/venv.sh "$scratch/venv" runtime test
for command in echod echoc; do
    "$scratch/venv/bin/$command" --help >/dev/null
done
mkdir "$scratch/tests"
for file in *; do
    case $file in
        echod | build | dist) ;;
        *) cp -R "$file" "$scratch/tests" ;;
    esac
done
cd "$scratch/tests"
# Without the tests of the archives themselves, which need the checkout that they are built from.
"$scratch/venv/bin/python" -m pytest -p no:cacheprovider --numprocesses "$2" --dist worksteal \
    --ignore tests/integration/test_distributions.py tests/unit tests/integration
