"""Script that prints the packages of this Python as a CycloneDX document: python sbom.py > sbom.cdx.json

It runs inside images, so it needs the standard library alone.
"""

import json
from importlib.metadata import Distribution, distributions


def package_list(found: list[Distribution]) -> dict[str, object]:
    """Return the packages as a CycloneDX document."""
    components = {one["purl"]: one for one in map(component, found)}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [components[purl] for purl in sorted(components, key=str)],
    }


def component(one: Distribution) -> dict[str, object]:
    """Return the entry of one package."""
    name, version = one.metadata["Name"], one.version
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    expression = one.metadata["License-Expression"] if "License-Expression" in one.metadata else None  # noqa: SIM401
    licenses = {"licenses": [{"expression": expression}]} if expression else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **licenses}


if __name__ == "__main__":
    print(json.dumps(package_list(list(distributions())), indent=1))
