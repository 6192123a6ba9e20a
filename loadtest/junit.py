"""The gate's checks as JUnit XML: one test case per check, and one for the validity of the run."""

import xml.etree.ElementTree as ET

from loadtest.result import Result
from loadtest.verdict import Code

_INVALID = {Code.GENERATOR_SATURATED, Code.STACK_FAILED, Code.GENERATOR_FAILED, Code.ABORTED}


def render(result: Result) -> str:
    """An invalid run is an error, a missed limit a failure."""
    failed = [check for check in result.checks if not check.passed]
    invalid = result.verdict.code in _INVALID
    suite = ET.Element(
        "testsuite",
        name=f"loadtest.{result.scenario}",
        tests=str(len(result.checks) + 1),
        failures=str(len(failed)),
        errors=str(int(invalid)),
        skipped="0",
        time=f"{result.load_seconds:.3f}",
        timestamp=result.started,
    )
    for check in result.checks:
        case = ET.SubElement(
            suite, "testcase", classname=f"loadtest.{result.scenario}.{check.name}", name=check.route
        )
        if not check.passed:
            said = f"{check.measured}, required {check.required}"
            failure = ET.SubElement(case, "failure", message=said, type="limit")
            failure.text = (
                f"{check.bad} of {check.total} bad" if check.bad is not None else f"of {check.total} samples"
            )
    run = ET.SubElement(suite, "testcase", classname=f"loadtest.{result.scenario}", name="the run is valid")
    if invalid:
        ET.SubElement(run, "error", message=result.verdict.code.words, type="invalid").text = "\n".join(
            result.verdict.reasons
        )
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    return ET.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
