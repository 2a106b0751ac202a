"""Prints the packages that this Python can import, as a CycloneDX document. Runs inside images: standard library alone.

python bill.py > sbom.cdx.json
"""

import json
from importlib.metadata import Distribution, distributions


def bill(found: list[Distribution]) -> dict[str, object]:
    """The packages as a CycloneDX document."""
    components = {one["purl"]: one for one in map(component, found)}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "components": [components[purl] for purl in sorted(components, key=str)],
    }


def component(one: Distribution) -> dict[str, object]:
    """One package."""
    name, version = one.metadata["Name"], one.version
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    said = one.metadata["License-Expression"] if "License-Expression" in one.metadata else None  # noqa: SIM401
    licenses = {"licenses": [{"expression": said}]} if said else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **licenses}


if __name__ == "__main__":
    print(json.dumps(bill(list(distributions())), indent=1))
