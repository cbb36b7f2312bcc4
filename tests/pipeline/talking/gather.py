"""Component: what all have said, in whatever order they come."""

from kfp import dsl

from components._image import on_cpu


@on_cpu()
def gather(said: dsl.Input[list[dsl.Artifact]], heard: list, all_said: dsl.Output[dsl.Artifact]):
    lines = []
    for one in said:
        with open(one.path) as file:
            lines.append(file.read())
    with open(all_said.path, "w") as file:
        file.writelines([*(f"heard {dict(sorted(each.items()))}\n" for each in heard), *sorted(lines)])
