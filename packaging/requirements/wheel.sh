#!/bin/sh
# wheel.sh PYTHON SHARES: build echod's wheel into dist/ with this Python's setuptools, see that it holds the whole
# package and nothing else, and run the tests against it, in SHARES processes, installed in an environment of its own.
#
# All of it happens outside the checkout. The build, because setuptools leaves build/ in the source tree and packs
# what an earlier build left there. The tests, because there `import echod` can find nothing but the wheel.
set -eu

cd "$(dirname "$0")/../.."
root=$(pwd)
python=$root/$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 1' HUP INT TERM

echo "echod: building the wheel"
mkdir "$scratch/source" "$scratch/tests"
cp -R pyproject.toml README.md LICENSE echod "$scratch/source"
rm -f dist/*.whl
"$python" -m pip --quiet --disable-pip-version-check wheel --no-deps --no-build-isolation --use-pep517 \
    --wheel-dir dist "$scratch/source"
wheel=$(echo dist/echod-*.whl)

"$python" - "$wheel" <<'END'
import pathlib, sys, zipfile
source = {str(path) for path in pathlib.Path("echod").rglob("*") if path.suffix == ".py" or path.name == "py.typed"}
packed = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}
if source != packed:
    sys.exit(f"echod: {sys.argv[1]} and echod/ differ by {', '.join(sorted(source ^ packed))}")
END

echo "echod: testing $wheel"
ECHOD=$root/$wheel sh packaging/requirements/venv.sh "$scratch/venv" runtime test
for command in echod echoc; do
    "$scratch/venv/bin/$command" --help >/dev/null
done
for file in *; do
    case $file in
        echod | build | dist | *.egg-info) ;;
        *) cp -R "$file" "$scratch/tests" ;;
    esac
done
cd "$scratch/tests"
"$scratch/venv/bin/python" -m pytest -p no:cacheprovider --numprocesses "$2" tests/unit tests/integration
