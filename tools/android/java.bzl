"""What Java needs of the machine: its JDK, and artifacts that its own Maven fetches."""

_HELP_JDK = "Install a JDK, 11 or later (Debian: openjdk-17-jdk-headless), and put javac on the path or set JAVA_HOME."
_HELP_MAVEN = ("Install Maven (Debian: maven), which fetches it from the repository that it is set up for; or name " +
               "the file, for instance of Gradle's cache: export %s=.../%s")

def _jdk_implementation(repository_ctx):
    home = repository_ctx.os.environ.get("JAVA_HOME", "")
    javac = repository_ctx.path(home).get_child("bin").get_child("javac") if home else repository_ctx.which("javac")
    if not javac or not javac.exists:
        fail("No javac %s. %s" % ("in JAVA_HOME, \"%s\"" % home if home else "found", _HELP_JDK))
    home = javac.realpath.dirname.dirname
    repository_ctx.symlink(home.get_child("include"), "include")
    repository_ctx.file("javac", "#!/bin/sh\nexec %s \"$@\"\n" % javac.realpath)
    repository_ctx.file("BUILD.bazel", """
package(default_visibility = ["//visibility:public"])

exports_files(["javac"])

cc_library(
    name = "jni",
    hdrs = glob(["include/**/*.h"]),
    includes = ["include", "include/%s"],
)
""" % ("darwin" if repository_ctx.os.name.lower().startswith("mac") else "linux"))

local_jdk_tools = repository_rule(
    implementation = _jdk_implementation,
    environ = [
        "JAVA_HOME",
        "PATH",
    ],
    doc = "The JDK of JAVA_HOME or of the path: :javac, and the headers of its native interface, :jni.",
)

def _maven_aar_implementation(repository_ctx):
    group, artifact, version = repository_ctx.attr.artifact.split(":")
    file = "%s-%s.aar" % (artifact, version)
    variable = repository_ctx.attr.variable
    named = repository_ctx.os.environ.get(variable, "")
    if named:
        repository_ctx.symlink(repository_ctx.path(named), file)
    else:
        maven = repository_ctx.which("mvn")
        if not maven:
            fail("%s is needed, and there is no mvn. " % repository_ctx.attr.artifact + _HELP_MAVEN % (variable, file))
        done = repository_ctx.execute([
            maven,
            "--quiet",
            "--batch-mode",
            "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
            "-Dartifact=%s:%s:%s:aar" % (group, artifact, version),
            "-DoutputDirectory=" + str(repository_ctx.path(".")),
        ], timeout = 300)
        if done.return_code != 0:
            fail("Maven could not fetch %s: %s" % (repository_ctx.attr.artifact, done.stdout + done.stderr))
    # Bazel tells the kind of an archive by its name.
    repository_ctx.symlink(file, file + ".zip")
    repository_ctx.extract(file + ".zip")
    repository_ctx.file("BUILD.bazel", """
package(default_visibility = ["//visibility:public"])

exports_files(glob(["**"]))
""")

maven_aar = repository_rule(
    implementation = _maven_aar_implementation,
    attrs = {
        "artifact": attr.string(mandatory = True, doc = "group:artifact:version of a library for Android"),
        "variable": attr.string(mandatory = True, doc = "environment variable that may name the file instead"),
    },
    environ = [
        "PATH",
        "TFLITE_API_AAR",
        "TFLITE_AAR",
    ],
    doc = "An unpacked .aar: classes.jar, jni/ and whatever else is in it.",
)
