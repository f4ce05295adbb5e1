"""The Python programs that prepare a board: any Python 3, standard library only, no single quote and no backslash.

Each prints one line of JSON behind SAID.
"""

SAID = "edgekit-said:"

#: What decides about wheels. A 32-bit system on a 64-bit kernel (Raspberry Pi OS) says aarch64 and takes armv7l.
PROBE = """
import importlib.util, json, os, struct, sys
machine = os.uname().machine
if struct.calcsize("P") == 4:
    machine = {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION") or ""
except (ValueError, OSError):
    libc = ""
print("edgekit-said:" + json.dumps({
    "python": sys.executable, "version": sys.version_info[:2], "machine": machine, "libc": libc,
    "home": os.path.expanduser("~"),
    "modules": [name for name in ("venv", "pip", "ensurepip") if importlib.util.find_spec(name)],
}))
"""

#: argument: the folder of a new environment. Without the venv module a folder of packages and a script take its place.
MAKE = """
import json, os, shutil, sys
root = sys.argv[1]
shutil.rmtree(root, ignore_errors=True)
os.makedirs(root)
try:
    import venv
    venv.create(root, with_pip=False, symlinks=True)
    packages = os.path.join(root, "lib", "python%d.%d" % sys.version_info[:2], "site-packages")
except ImportError:
    packages = os.path.join(root, "packages")
    os.makedirs(os.path.join(root, "bin"))
    os.makedirs(packages)
    script = os.path.join(root, "bin", "python")
    with open(script, "w") as file:
        print("#!/bin/sh", file=file)
        print("PYTHONPATH=${0%/bin/python}/packages exec", sys.executable, chr(34) + "$@" + chr(34), file=file)
    os.chmod(script, 0o755)
print("edgekit-said:" + json.dumps(packages))
"""

#: arguments: the module to import, the name of the runtime. Imports what was installed.
CHECK = """
import importlib, json, sys
import numpy
importlib.import_module(sys.argv[1])
version = sys.modules[sys.argv[1].partition(".")[0]].__version__
print("edgekit-said:" + json.dumps({"numpy": numpy.__version__, sys.argv[2]: version}))
"""

#: arguments: the new environment, the one in use. The old one is kept until the new one is in its place.
EXCHANGE = """
import json, os, shutil, sys
new, used = sys.argv[1:]
old = used + ".old"
shutil.rmtree(old, ignore_errors=True)
if os.path.lexists(used):
    os.rename(used, old)
os.rename(new, used)
shutil.rmtree(old, ignore_errors=True)
print("edgekit-said:" + json.dumps(used))
"""
